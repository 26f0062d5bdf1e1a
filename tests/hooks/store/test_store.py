"""Activations on disk are those that capture gives, however they are read."""

import dataclasses
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, intervening, sites, store
from hooks.store import disk, survey, writing

EVERYWHERE = [Site("resid_post", 0), Site("resid_post", 1), Site("z", 1), Site("pattern", 0)]


def corpus(batches=3, width=7, seed=0):
    """Batches of three documents, of 7, 5 and 3 tokens; the last batch is narrower."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for number in range(batches):
        wide = width - 2 * (number == batches - 1)
        lengths = torch.tensor([wide, wide - 2, 3])
        found.append(Prompts(torch.randint(5, 200, (3, wide), generator=rng), lengths))
    return found


def by_hand(model, batches, site):
    """What flows through `site` in each document, without padding, from one pass for each batch."""
    found = []
    for batch in batches:
        for row, length in enumerate(batch.lengths.tolist()):
            seen = capture(model, batch, [site])[site][row]
            if "query" in site.axes:
                seen = seen.movedim(1, 0)
            found.append(seen[:length])
    return found


def blobs(path):
    return sorted(p.name for p in (Path(path) / "blobs").iterdir())


@pytest.fixture
def counted(monkeypatch):
    """The batches that were run to be stored."""
    ran = []

    def counting(model, prompts, wanted, **how):
        ran.append(prompts)
        return capture(model, prompts, wanted, **how)

    monkeypatch.setattr(writing, "capture", counting)
    return ran


@pytest.fixture
def held(tiny, tmp_path):
    return store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")


def test_every_document_gives_what_capture_gives(small, tmp_path):
    wanted = [site for name in sorted(small.access.readable) for site in sites.all(small, name)]
    batches = corpus()
    store.write(small, batches, wanted, tmp_path / "it", key="test")
    held = store.open(tmp_path / "it")
    assert held.sites == tuple(sorted(wanted))
    for site in wanted:
        for number, expected in enumerate(by_hand(small, batches, site)):
            found = held.document(number, site)
            assert_close(found[site], expected, rtol=0, atol=0)


def test_batches_documents_and_rows_are_the_same_numbers(held, tiny):
    site = Site("z", 1)
    expected = torch.cat(by_hand(tiny, corpus(), site))
    assert_close(torch.cat([rows[site] for rows in held.batches(site)]), expected, rtol=0, atol=0)
    assert_close(held.read(site)[site], expected, rtol=0, atol=0)
    some = torch.tensor([41, 0, 17, 17])
    assert held.rows == 15 + 15 + 11 == len(expected)
    assert_close(held.take(some - 1 * (some == 41), site)[site], expected[[40, 0, 17, 17]])


def test_each_row_says_which_token_it_is(held):
    tokens, documents, positions = [], [], []
    for number, (batch, row) in enumerate((b, r) for b in corpus() for r in range(3)):
        length = int(batch.lengths[row])
        tokens += batch.tokens[row, :length].tolist()
        documents += [number] * length
        positions += range(length)
    for rows in (held.read(Site("z", 1)), held.take(torch.arange(held.rows), [])):
        assert rows.token.tolist() == tokens
        assert rows.document.tolist() == documents
        assert rows.position.tolist() == positions
    rows = list(held.batches(Site("z", 1)))
    assert torch.cat([one.token for one in rows]).tolist() == tokens
    assert torch.cat([one.document for one in rows]).tolist() == documents
    assert held.document(4, []).position.tolist() == [0, 1, 2, 3, 4]
    assert held.lengths.tolist() == [7, 5, 3, 7, 5, 3, 5, 3, 3]


def test_documents_and_positions_are_read_in_the_order_asked_for(held, tiny):
    site = Site("resid_post", 1)
    each = by_hand(tiny, corpus(), site)
    rows = held.read(site, documents=[7, 0], positions=[2, 0])
    assert rows.document.tolist() == [7, 7, 0, 0]
    assert rows.position.tolist() == [2, 0, 2, 0]
    assert_close(rows[site], torch.stack([each[7][2], each[7][0], each[0][2], each[0][0]]))
    assert_close(held.read(site, positions=1)[site], torch.stack([one[1] for one in each]))
    assert_close(held.read(site, documents=[3])[site], each[3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, "float16"])
def test_the_precision_on_disk_is_a_choice(tiny, tmp_path, dtype):
    site = Site("resid_post", 1)
    held = store.write(tiny, corpus(), [site], tmp_path / "it", key="test", dtype=dtype)
    expected = torch.cat(by_hand(tiny, corpus(), site))
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert_close(held.read()[site], expected.to(wanted), rtol=0, atol=0)
    assert_close(held.document(2)[site], expected.to(wanted)[12:15], rtol=0, atol=0)


def test_a_number_too_large_for_the_precision_is_refused(tiny, tmp_path):
    weight = tiny.blocks[1].mlp.out.weight
    before = weight.detach().clone()
    try:
        weight.data.mul_(1e8)
        with pytest.raises(FloatingPointError, match=r"mlp_out 1 reaches .* float16 ends at 65504"):
            store.write(
                tiny, corpus(), [Site("mlp_out", 1)], tmp_path / "it", key="", dtype="float16"
            )
        store.write(tiny, corpus(), [Site("mlp_out", 1)], tmp_path / "it", key="", dtype="bfloat16")
    finally:
        weight.data.copy_(before)


def test_one_position_of_each_document_is_kept_without_the_rest(tiny, tmp_path):
    site, batches = Site("resid_post", 1), corpus()
    each = by_hand(tiny, batches, site)
    last = store.write(tiny, batches, [site], tmp_path / "1", key="", positions="last")
    assert last.rows == 9
    assert_close(last.read()[site], torch.stack([one[-1] for one in each]), rtol=0, atol=0)
    marked = torch.tensor([6, 0, 2, 3, 4, 1, 0, 1, 2])
    held = store.write(tiny, batches, [site], tmp_path / "2", key="", positions=marked)
    expected = torch.stack([one[at] for one, at in zip(each, marked.tolist(), strict=True)])
    rows = held.read()
    assert_close(rows[site], expected, rtol=0, atol=0)
    assert_close(rows.position, marked)
    assert rows.token.tolist() == [
        int(batch.tokens[row, at])
        for (batch, row), at in zip(
            [(b, r) for b in batches for r in range(3)], marked.tolist(), strict=True
        )
    ]
    several = store.write(tiny, batches, [site], tmp_path / "3", key="", positions=[0, 2])
    assert_close(several.document(4)[site], each[4][[0, 2]], rtol=0, atol=0)
    assert_close(several.read(positions=2)[site], torch.stack([one[2] for one in each]))
    with pytest.raises(ValueError, match="position 1 of document 0 is not stored; stored: 0, 2"):
        several.read(positions=1)


def test_attention_of_batches_of_different_width_is_read_together(held, tiny):
    site = Site("pattern", 0)
    rows = held.read(site)[site]
    assert rows.shape == (41, 4, 7)
    for found, expected in zip(
        rows.split(held.lengths.tolist()), by_hand(tiny, corpus(), site), strict=True
    ):
        assert_close(found[..., : expected.shape[-1]], expected, rtol=0, atol=0)
    assert_close(rows.sum(-1), torch.ones(41, 4))  # what is beyond the width is no attention


def test_scores_beyond_a_batchs_width_are_masked(tiny, tmp_path):
    site = Site("scores", 1)
    held = store.write(tiny, corpus(), [site], tmp_path / "it", key="test")
    for rows in (held.read()[site], torch.from_numpy(held.to_xarray("scores").values[0])):
        assert rows.shape == (41, 4, 7)
        assert bool((rows[30:, :, 5:] == -torch.inf).all())  # the last batch is 5 wide
        assert bool(torch.isfinite(rows[:30, :, 0]).all())
    narrow = held.to_xarray("scores")[0, 30:].values  # of one narrow batch, in the whole's width
    np.testing.assert_array_equal(narrow, held.read()[site][30:].numpy())


def test_few_batches_stay_mapped_while_rows_are_read_at_random(held, monkeypatch):
    site = Site("z", 1)
    monkeypatch.setattr("hooks.store.reading._MAPPED", 1)
    whole = held.read(site)[site]
    rows = torch.tensor([40, 0, 20, 39, 1])
    assert_close(held.take(rows, site)[site], whole[rows], rtol=0, atol=0)
    assert len(held._mapped) == 1


def test_documents_are_read_through_memory_maps(held):
    held.check()
    rows = held.document(1, Site("resid_post", 0))
    name = held.shelf._place(held.shelf._places([held.content.key(0)])[held.content.key(0)]).name
    assert name in Path("/proc/self/maps").read_text()
    del rows
    gc.collect()
    assert name not in Path("/proc/self/maps").read_text()


def test_random_batches_go_through_every_row_once(held):
    site = Site("resid_post", 1)
    whole = held.read(site)[site]
    seen = list(held.shuffled(site, size=16, seed=3))
    assert [len(rows.token) for rows in seen] == [16, 16, 9]
    starts = held.lengths.cumsum(0) - held.lengths
    numbers = torch.cat([starts[rows.document] + rows.position for rows in seen])
    assert sorted(numbers.tolist()) == list(range(41))
    assert numbers.tolist() != list(range(41))
    assert_close(torch.cat([rows[site] for rows in seen]), whole[numbers], rtol=0, atol=0)
    again = list(held.shuffled(site, size=16, seed=torch.Generator().manual_seed(3)))
    assert [rows.token.tolist() for rows in seen] == [rows.token.tolist() for rows in again]
    some = torch.cat(
        [rows.document for rows in held.shuffled(site, size=4, seed=0, documents=[8, 2])]
    )
    assert sorted(some.tolist()) == [2, 2, 2, 8, 8, 8]


def test_as_xarray_the_axes_have_names_and_only_what_is_used_is_read(held, tiny):
    array = held.to_xarray("resid_post")
    assert array.dims == ("layer", "row", "d_model")
    assert array.layer.values.tolist() == [0, 1]
    assert not held._mapped  # nothing has been read so far
    third = array.sel(layer=1)[array.document == 3]
    expected = by_hand(tiny, corpus(), Site("resid_post", 1))[3]
    assert_close(torch.from_numpy(third.values), expected, rtol=0, atol=0)
    assert list(held._mapped) == [1]  # the batch of that document
    assert third.token.values.tolist() == corpus()[1].tokens[0].tolist()
    assert third.position.values.tolist() == list(range(7))


PIECES = [
    (0,), (slice(None), 5), (0, slice(3, 40, 4), slice(0, 8, 3)), (slice(None), [40, 2]),
    (slice(None), slice(None), [1, 0]), (slice(None), slice(None), 3), (0, 11),
    (slice(None), slice(2, 2)), (slice(0, 1), 7, 2), (-1, -1, -1), (slice(None), 40, [0, 3, 3]),
]  # fmt: skip


@pytest.mark.parametrize("stream", ["resid_post", "pattern"])
def test_any_piece_of_the_xarray_is_that_piece_of_the_whole(held, stream):
    whole = np.stack([held.read(s)[s].numpy() for s in held.sites if s.stream == stream])
    for at in PIECES:
        np.testing.assert_array_equal(held.to_xarray(stream)[at].values, whole[at], str(at))
    deeper = (0, slice(None), slice(None), -1) if stream == "pattern" else (1, 0)
    np.testing.assert_array_equal(held.to_xarray(stream)[deeper].values, whole[deeper])


def test_bfloat16_is_read_as_float32_by_numpy(tiny, tmp_path):
    site = Site("resid_post", 1)
    held = store.write(tiny, corpus(), [site], tmp_path / "it", key="", dtype="bfloat16")
    array = held.to_xarray("resid_post")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.values[0], held.read()[site].float().numpy())


def test_a_second_call_opens_what_is_there(tiny, tmp_path, counted):
    first = store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")
    assert len(counted) == 3
    again = store.write(tiny, corpus(), EVERYWHERE[::-1], tmp_path / "it", key="test")
    assert len(counted) == 3
    assert again.content.digest == first.content.digest
    assert_close(again.read()[Site("z", 1)], first.read()[Site("z", 1)], rtol=0, atol=0)


def test_what_stands_in_the_padding_does_not_count_as_content(tiny, tmp_path, counted):
    store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")
    other = [Prompts(b.tokens * b.mask + 9 * (1 - b.mask), b.lengths) for b in corpus()]
    store.write(tiny, other, EVERYWHERE, tmp_path / "it", key="test")
    assert len(counted) == 3


def test_a_token_of_id_zero_is_not_taken_for_padding():
    long, short = (Prompts(torch.tensor([[5, 0]]), torch.tensor([length])) for length in (2, 1))
    assert survey.digest(long) != survey.digest(short)


def _other_token(tiny, how, monkeypatch):
    how["batches"][2].tokens[0, 0] += 1


def _shorter(tiny, how, monkeypatch):
    how["batches"][2].lengths[1] = 2


def _other_batching(tiny, how, monkeypatch):
    how["batches"] = [how["batches"][0], how["batches"][1][:2], how["batches"][1][2:]]
    how["batches"].append(corpus()[2])


def _other_key(tiny, how, monkeypatch):
    how["key"] = "other documents"


def _other_sites(tiny, how, monkeypatch):
    how["sites"] = [*EVERYWHERE, Site("z", 0)]


def _other_dtype(tiny, how, monkeypatch):
    how["dtype"] = "bfloat16"


def _other_positions(tiny, how, monkeypatch):
    how["positions"] = "last"


def _other_weight(tiny, how, monkeypatch):
    weight = tiny.blocks[0].mlp.out.weight
    before = weight.detach().clone()
    weight.data.view(-1)[7] += 0.5
    return lambda: weight.data.copy_(before)


def _other_tokenizer(tiny, how, monkeypatch):
    monkeypatch.setattr(tiny, "origin", dataclasses.replace(tiny.origin, tokenizer="another"))


def _other_origin(tiny, how, monkeypatch):
    monkeypatch.setattr(tiny, "origin", dataclasses.replace(tiny.origin, digest="another"))


def _other_config(tiny, how, monkeypatch):
    monkeypatch.setattr(tiny.original_model.config, "layer_norm_epsilon", 1e-2)


def _other_version(tiny, how, monkeypatch):
    monkeypatch.setattr("hooks.store.content._version", lambda library: f"{library} of tomorrow")


@pytest.mark.parametrize(
    "change",
    [
        _other_token, _shorter, _other_batching, _other_key, _other_sites, _other_dtype,
        _other_positions, _other_weight, _other_tokenizer, _other_origin, _other_config,
        _other_version,
    ],
)  # fmt: skip
def test_whatever_changes_nothing_old_is_used(tiny, tmp_path, counted, monkeypatch, change):
    how = {"batches": corpus(), "sites": EVERYWHERE, "key": "test", "dtype": "float32"}

    def write(batches, sites, **rest):
        return store.write(tiny, batches, sites, tmp_path / "it", **rest)

    first = write(**how)
    counted.clear()
    undo = change(tiny, how, monkeypatch)
    try:
        other = write(**how)
        assert len(counted) == len(how["batches"])
        assert other.content.digest != first.content.digest
        write(**how)
        assert len(counted) == len(how["batches"])
    finally:
        if undo:
            undo()
    (shown, wanted) = (first.content.digest, other.content.digest)
    with pytest.raises(ValueError, match=r"holds .*; .*takes the beginning of a digest"):
        store.open(tmp_path / "it")
    assert store.open(tmp_path / "it", content=shown[:10]).content.digest == shown
    assert store.open(tmp_path / "it", content=wanted).content.digest == wanted


def test_the_plan_is_what_is_written(tiny, tmp_path):
    batches = corpus(batches=20, width=40)
    planned = store.plan(tiny, batches, EVERYWHERE, tmp_path / "it", key="test")
    assert not (tmp_path / "it").exists()
    assert planned.missing == tuple(range(20))
    held = store.write(tiny, batches, EVERYWHERE, tmp_path / "it", key="test")
    written = sum(path.stat().st_size for path in (tmp_path / "it" / "blobs").iterdir())
    assert written == pytest.approx(planned.bytes, rel=0.03)
    assert planned.content.digest == held.content.digest
    assert "1,616 tokens of 60 documents at 4 sites" in str(planned)
    assert 0 < planned.seconds < 60
    again = store.plan(tiny, batches, EVERYWHERE, tmp_path / "it", key="test")
    assert (again.missing, again.bytes, again.seconds) == ((), 0, 0.0)
    other = store.plan(tiny, batches, EVERYWHERE, tmp_path / "it", key="test", dtype="float16")
    assert other.unlike == ("dtype",)
    assert other.bytes == pytest.approx(planned.bytes / 2, rel=0.05)


def test_a_disk_without_room_is_refused_before_anything_is_run(
    tiny, tmp_path, counted, monkeypatch
):
    monkeypatch.setattr(disk, "free", lambda folder: 1000)
    with pytest.raises(
        OSError, match=r"not the room for 41 tokens .* GB to write, 0.0 GB are free"
    ):
        store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")
    assert not (tmp_path / "it").exists()
    assert not counted


def test_at_most_two_batches_are_in_memory_at_once(tiny, tmp_path, monkeypatch):
    alive: list[weakref.ref] = []
    most = 0

    def watched(model, prompts, wanted, **how):
        nonlocal most
        seen = capture(model, prompts, wanted, **how)
        alive.extend(weakref.ref(tensor) for tensor in seen.values())
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return seen

    monkeypatch.setattr(writing, "capture", watched)
    store.write(tiny, corpus(batches=6), EVERYWHERE, tmp_path / "it", key="test")
    assert len(alive) == 6 * 4
    assert most <= 2 * 4


class Streamed:
    """A corpus that is made anew each time it is gone through."""

    def __init__(self, *passes):
        self.passes = list(passes)

    def __iter__(self):
        return iter(self.passes.pop(0) if len(self.passes) > 1 else self.passes[0])


def test_batches_are_streamed_and_must_be_the_same_each_time(tiny, tmp_path):
    store.write(tiny, Streamed(corpus()), EVERYWHERE, tmp_path / "it", key="test")
    with pytest.raises(ValueError, match="can be gone through only once"):
        store.write(tiny, iter(corpus()), EVERYWHERE, tmp_path / "it", key="test")
    other = Streamed(corpus(seed=1), corpus(seed=1), corpus(seed=2))
    with pytest.raises(ValueError, match="batch 0 held other tokens when it was counted"):
        store.write(tiny, other, EVERYWHERE, tmp_path / "it", key="test")
    fewer = Streamed(corpus(seed=3), corpus(seed=3), corpus(seed=3)[:2])
    with pytest.raises(ValueError, match="batch 2 was there when the batches were counted"):
        store.write(tiny, fewer, EVERYWHERE, tmp_path / "it", key="test")


def test_a_model_that_is_being_edited_is_not_stored(tiny, tmp_path, counted):
    with (
        pytest.raises(ValueError, match=r"being edited or read at blocks\.1\.attn"),
        intervening(tiny, {Site("z", 1): edits.zero()}),
    ):
        store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")
    assert not counted


def test_what_cannot_be_stored_is_refused(tiny, tmp_path):
    def write(batches=None, wanted=EVERYWHERE, **how):
        batches = corpus() if batches is None else batches
        store.write(tiny, batches, wanted, tmp_path / "it", key="test", **how)

    with pytest.raises(ValueError, match="there are no batches"):
        write(batches=[])
    with pytest.raises(ValueError, match="name at least one site"):
        write(wanted=[])
    with pytest.raises(ValueError, match="z 9 is not in this model"):
        write(wanted=[Site("z", 9)])
    with pytest.raises(ValueError, match="'int8' is not stored; there are float32, float16, bfl"):
        write(dtype=torch.int8)
    with pytest.raises(ValueError, match="document 2 has 3 tokens, asked for position 3"):
        write(positions=3)
    with pytest.raises(ValueError, match="4 positions for at least 6 documents: give one for each"):
        write(positions=torch.tensor([0, 1, 2, 1]))
    with pytest.raises(ValueError, match="10 positions for 9 documents: give one for each"):
        write(positions=torch.zeros(10, dtype=torch.long))
    assert not (tmp_path / "it").exists()


def test_what_is_not_in_the_store_is_named(held, tmp_path):
    with pytest.raises(KeyError, match="z 0 was not stored; stored: pattern 0, resid_post 0"):
        held.read(Site("z", 0))
    with pytest.raises(KeyError, match="resid_post 1 was not stored; stored: z 1"):
        held.read(Site("z", 1))[Site("resid_post", 1)]
    with pytest.raises(KeyError, match="nothing of q was stored; stored: pattern, resid_post, z"):
        held.to_xarray("q")
    with pytest.raises(ValueError, match="no document 9: they are 0 to 8"):
        held.document(9)
    with pytest.raises(ValueError, match="position 3 of document 2 is not stored; stored: 0 to 2"):
        held.read(documents=[0, 2], positions=3)
    with pytest.raises(ValueError, match="take at least one"):
        next(held.shuffled(size=0, seed=0))
    with pytest.raises(FileNotFoundError, match="there is no shelf; write one first"):
        store.open(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"digest begins with abcxyz, .* holds none"):
        store.open(tmp_path / "it", content="abcxyz")
