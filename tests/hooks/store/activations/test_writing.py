"""What is written to disk, what that takes, and what is refused."""

import gc
import weakref

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening, store
from hooks.store import disk, writing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, "float16"])
def test_the_precision_on_disk_is_a_choice(tiny, tmp_path, dtype, corpus, by_hand):
    site = Site("resid_post", 1)
    held = store.write(tiny, corpus(), [site], tmp_path / "it", key="test", dtype=dtype)
    expected = torch.cat(by_hand(tiny, corpus(), site))
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert_close(held.read()[site], expected.to(wanted), rtol=0, atol=0)
    assert_close(held.document(2)[site], expected.to(wanted)[12:15], rtol=0, atol=0)


def test_a_number_too_large_for_the_precision_is_refused(tiny, tmp_path, corpus):
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


def test_one_position_of_each_document_is_kept_without_the_rest(tiny, tmp_path, corpus, by_hand):
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


def test_the_plan_is_what_is_written(tiny, tmp_path, EVERYWHERE, corpus):
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
    tiny, tmp_path, counted, monkeypatch, EVERYWHERE, corpus
):
    monkeypatch.setattr(disk, "free", lambda folder: 1000)
    with pytest.raises(
        OSError, match=r"not the room for 41 tokens .* GB to write, 0.0 GB are free"
    ):
        store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")
    assert not (tmp_path / "it").exists()
    assert not counted


def test_at_most_two_batches_are_in_memory_at_once(tiny, tmp_path, monkeypatch, EVERYWHERE, corpus):
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


def test_batches_are_streamed_and_must_be_the_same_each_time(tiny, tmp_path, EVERYWHERE, corpus):
    store.write(tiny, Streamed(corpus()), EVERYWHERE, tmp_path / "it", key="test")
    with pytest.raises(ValueError, match="can be gone through only once"):
        store.write(tiny, iter(corpus()), EVERYWHERE, tmp_path / "it", key="test")
    other = Streamed(corpus(seed=1), corpus(seed=1), corpus(seed=2))
    with pytest.raises(ValueError, match="batch 0 held other tokens when it was counted"):
        store.write(tiny, other, EVERYWHERE, tmp_path / "it", key="test")
    fewer = Streamed(corpus(seed=3), corpus(seed=3), corpus(seed=3)[:2])
    with pytest.raises(ValueError, match="batch 2 was there when the batches were counted"):
        store.write(tiny, fewer, EVERYWHERE, tmp_path / "it", key="test")


def test_a_model_that_is_being_edited_is_not_stored(tiny, tmp_path, counted, EVERYWHERE, corpus):
    with (
        pytest.raises(ValueError, match=r"being edited or read at blocks\.1\.attn"),
        intervening(tiny, {Site("z", 1): edits.zero()}),
    ):
        store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")
    assert not counted


def test_what_cannot_be_stored_is_refused(tiny, tmp_path, EVERYWHERE, corpus):
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
