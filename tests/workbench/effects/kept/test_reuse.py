"""What is reused, and what is not once something has changed."""

from dataclasses import replace

import torch
from torch.testing import assert_close

from hooks import Prompts, Site, edits
from workbench import effects, metrics


def test_whatever_changes_nothing_old_is_reused(sweep, tmp_path, ran, what, CHANGES):
    change, affected = CHANGES[what]
    old = sweep(tmp_path / "kept")
    ran.clear()
    changed = change(sweep)
    found = changed(tmp_path / "kept")
    assert sorted(cell for batch in ran for cell in batch) == list(affected)
    assert found.cost.resumed == 10 - len(affected)
    assert_close(found.values, changed().values, rtol=1e-5, atol=1e-5)
    if found.values.shape == old.values.shape:
        assert not found.values[:, list(affected)].equal(old.values[:, list(affected)])


def test_answers_and_foils_are_told_apart(model, padded, tmp_path, cells_of):
    """The same ids in the same order, of which two are answers or one is."""
    ids = torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]])
    flat = ids.flatten()
    two = replace(padded, answer=flat[:6].reshape(3, 2), foil=flat[6:].reshape(3, 1))
    one = replace(padded, answer=flat[:3].reshape(3, 1), foil=flat[3:].reshape(3, 2))
    cells = cells_of()
    for task in (two, one):
        found = effects.exact(model, task, cells, metrics=[metrics.logit_diff], keep=tmp_path / "k")
        assert found.cost.resumed == 0


def test_a_sweep_reuses_what_another_one_has_in_common_with_it(sweep, tmp_path, ran):
    first = sweep(tmp_path / "kept")
    ran.clear()
    more = [{Site("final"): edits.scale(0.5)}, *reversed(sweep.cells)]
    found = replace(sweep, cells=more)(tmp_path / "kept")
    assert ran == [(0,)] and found.cost.resumed == 10
    assert found.values[:, 1:].flip(1).equal(first.values)


def test_the_same_cell_twice_is_kept_once_and_given_twice(sweep, tmp_path, ran, cells_of):
    cells = [sweep.cells[0], *cells_of()[1:3], sweep.cells[0]]
    twice = replace(sweep, cells=cells)
    found = twice(tmp_path / "kept")
    assert ran == [(0, 1), (2,)] and found.cost.resumed == 1
    assert found.values[:, 0].equal(found.values[:, 3])
    assert twice(tmp_path / "kept").values.equal(found.values)


def test_padding_ids_do_not_matter(sweep, tmp_path, ran):
    first = sweep(tmp_path / "kept")
    ran.clear()
    clean = sweep.task.clean
    tokens = torch.where(clean.mask.bool(), clean.tokens, 9)
    other = replace(sweep, task=replace(sweep.task, clean=Prompts(tokens, clean.lengths)))
    assert other(tmp_path / "kept").values.equal(first.values) and ran == []


def test_some_prompts_of_an_edit_chosen_beforehand_are_part_of_what_it_is(sweep, tmp_path, ran):
    value = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(1))
    whole = edits.replace(value)
    for order in ([0, 1, 2], [2, 0, 1]):
        cell = {Site("resid_pre", 1): whole.of(torch.tensor(order))}
        assert replace(sweep, cells=[cell])(tmp_path / "kept").cost.resumed == 0
