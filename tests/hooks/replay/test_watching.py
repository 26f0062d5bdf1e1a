"""What is shown of a cell against an ordinary pass under its edits."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, intervening, replay
from hooks.replay import checking
from workbench.models import twins

ARCHITECTURES = ("GPT-2", "Llama", "Qwen 3", "GPT-NeoX", "Gemma 3")


def pair():
    """Padded prompts, and others that differ in their third token."""
    tokens = torch.randint(3, 67, (3, 7), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 2] = (tokens[:, 2] + 5) % 60 + 3
    lengths = torch.tensor([7, 5, 3])
    return Prompts(tokens, lengths), Prompts(changed, lengths)


def cells_of(model, there):
    """Edits of a head, of the stream, of an MLP, and of two layers at once."""
    z, mlp = Site("z", 0), Site("mlp_out", 0)
    seen = capture(model, there, [z, mlp, Site("resid_pre", 1), Site("attn_out", 1)])
    return [
        {z: edits.replace(seen[z], heads=[1])},
        {Site("resid_pre", 1): edits.replace(seen[Site("resid_pre", 1)])},
        {mlp: edits.replace(seen[mlp], positions=2)},
        {z: edits.zero(heads=[2]), Site("attn_out", 1): edits.replace(seen[Site("attn_out", 1)])},
    ]


def filled(model, prompts, plan, sites):
    """The activations of every cell, from what was shown and, where nothing was, the base run."""
    base = capture(model, prompts, sites)
    found = {site: base[site].expand(len(plan.cells), *base[site].shape).clone() for site in sites}

    def show(seen):
        found[seen.site][seen.cells, seen.prompts, seen.start :] = seen.activation

    trail = replay.Trail()
    replay.watch(plan, sites, show, trail=trail)
    return found, trail


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_cell_shows_what_an_ordinary_pass_under_its_edits_holds(architecture):
    model, _ = twins.make(architecture)
    here, there = pair()
    cells = cells_of(model, there)
    sites = [Site("z", 0), Site("attn_out", 0), Site("q", 1), Site("v", 1), Site("mlp_out", 1)]
    plan = replay.plan(model, here, cells, reads=replay.Reads("all"))
    found, trail = filled(model, here, plan, sites)
    real = here.mask.bool()
    for index, cell in enumerate(cells):
        with intervening(model, cell):
            expected = capture(model, here, sites, logits="last")
        for site in sites:
            room = 1e-5 * float(expected[site].abs().max())
            assert_close(found[site][index][real], expected[site][real], rtol=0, atol=room)
    assert len(trail.checked) == 3 and trail.largest_difference < 1e-5


def test_nothing_is_shown_of_prompts_that_a_cell_does_not_change_nor_before_the_first_change():
    model, _ = twins.make("Llama")
    here, there = pair()
    there.tokens[1] = here.tokens[1]
    source = capture(model, there, [Site("z", 0)])[Site("z", 0)]
    plan = replay.plan(
        model, here, [{Site("z", 0): edits.replace(source)}], reads=replay.Reads("all")
    )
    shown = []
    replay.watch(plan, [Site("mlp_out", 1)], shown.append)
    assert {int(row) for seen in shown for row in seen.prompts} == {0, 2}
    assert {seen.start for seen in shown} == {2}


def test_where_nothing_can_be_saved_whole_passes_are_shown():
    model, _ = twins.make("BERT")
    here, _ = pair()
    cell = {Site("q", 0): edits.zero(heads=[1])}
    plan = replay.plan(model, here, [cell], reads=replay.Reads("all"))
    plan = dataclasses.replace(plan, works={}, in_full=(0,), batches=((0,),), checked=())
    found, _ = filled(model, here, plan, [Site("z", 1)])
    with intervening(model, cell):
        expected = capture(model, here, [Site("z", 1)])[Site("z", 1)]
    assert_close(found[Site("z", 1)][0], expected, rtol=0, atol=0)


def test_a_difference_from_an_ordinary_pass_is_an_error_that_names_cell_and_site(monkeypatch):
    model, _ = twins.make("GPT-2")
    here, there = pair()
    plan = replay.plan(model, here, cells_of(model, there), reads=replay.Reads("all"))
    right = checking.seen

    def wrong(plan, pairs, sites):
        found = right(plan, pairs, sites)
        found[sites[0]].add_(1)
        return found

    monkeypatch.setattr(checking, "seen", wrong)
    with pytest.raises(replay.ReplayMismatch, match=r"cell \d .*of the largest mlp_out 1"):
        replay.watch(plan, [Site("mlp_out", 1)], lambda seen: None)


def test_sites_between_blocks_are_refused():
    model, _ = twins.make("GPT-2")
    here, there = pair()
    plan = replay.plan(model, here, cells_of(model, there))
    for site in (Site("final"), Site("resid_post", 0), Site("embed")):
        with pytest.raises(ValueError, match="lies in no block"):
            replay.watch(plan, [site], lambda seen: None)
    with pytest.raises(ValueError, match="name at least one site"):
        replay.watch(plan, [], lambda seen: None)
