"""Activations on disk are those that capture gives, however they are read."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hooks import Site, sites, store


def test_every_document_gives_what_capture_gives(small, tmp_path, corpus, by_hand):
    wanted = [site for name in sorted(small.access.readable) for site in sites.all(small, name)]
    batches = corpus()
    store.write(small, batches, wanted, tmp_path / "it", key="test")
    held = store.open(tmp_path / "it")
    assert held.sites == tuple(sorted(wanted))
    for site in wanted:
        for number, expected in enumerate(by_hand(small, batches, site)):
            found = held.document(number, site)
            assert_close(found[site], expected, rtol=0, atol=0)


def test_batches_documents_and_rows_are_the_same_numbers(held, tiny, corpus, by_hand):
    site = Site("z", 1)
    expected = torch.cat(by_hand(tiny, corpus(), site))
    assert_close(torch.cat([rows[site] for rows in held.batches(site)]), expected, rtol=0, atol=0)
    assert_close(held.read(site)[site], expected, rtol=0, atol=0)
    some = torch.tensor([41, 0, 17, 17])
    assert held.rows == 15 + 15 + 11 == len(expected)
    assert_close(held.take(some - 1 * (some == 41), site)[site], expected[[40, 0, 17, 17]])


def test_each_row_says_which_token_it_is(held, corpus):
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


def test_documents_and_positions_are_read_in_the_order_asked_for(held, tiny, corpus, by_hand):
    site = Site("resid_post", 1)
    each = by_hand(tiny, corpus(), site)
    rows = held.read(site, documents=[7, 0], positions=[2, 0])
    assert rows.document.tolist() == [7, 7, 0, 0]
    assert rows.position.tolist() == [2, 0, 2, 0]
    assert_close(rows[site], torch.stack([each[7][2], each[7][0], each[0][2], each[0][0]]))
    assert_close(held.read(site, positions=1)[site], torch.stack([one[1] for one in each]))
    assert_close(held.read(site, documents=[3])[site], each[3])


def test_attention_of_batches_of_different_width_is_read_together(held, tiny, corpus, by_hand):
    site = Site("pattern", 0)
    rows = held.read(site)[site]
    assert rows.shape == (41, 4, 7)
    for found, expected in zip(
        rows.split(held.lengths.tolist()), by_hand(tiny, corpus(), site), strict=True
    ):
        assert_close(found[..., : expected.shape[-1]], expected, rtol=0, atol=0)
    assert_close(rows.sum(-1), torch.ones(41, 4))  # what is beyond the width is no attention


def test_scores_beyond_a_batchs_width_are_masked(tiny, tmp_path, corpus):
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


def test_as_xarray_the_axes_have_names_and_only_what_is_used_is_read(held, tiny, corpus, by_hand):
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


def test_bfloat16_is_read_as_float32_by_numpy(tiny, tmp_path, corpus):
    site = Site("resid_post", 1)
    held = store.write(tiny, corpus(), [site], tmp_path / "it", key="", dtype="bfloat16")
    array = held.to_xarray("resid_post")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.values[0], held.read()[site].float().numpy())


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


@pytest.mark.parametrize("row", [-1, 41])
def test_a_row_that_is_not_there_is_named(held, row):
    with pytest.raises(IndexError, match=f"there is no row {row}: rows are 0 to 40"):
        held.take(torch.tensor([0, row]))
