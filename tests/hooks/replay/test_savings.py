"""What is not computed, counted by hand and watched at the blocks themselves."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, replay
from hooks.replay import Reads

LENGTHS = torch.tensor([7, 5, 3])
AT = torch.tensor([4, 2, 1])
PROMPTS = Prompts(torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(1)), LENGTHS)


def sources(model, *sites):
    return capture(model, PROMPTS, list(sites))


@pytest.mark.parametrize(
    ("site", "edit", "rows", "tokens", "run"),
    [
        # GPT-2 has two blocks; a prompt that starts at p sends 7 - p tokens through a block. No
        # padding is run where all that run together are shorter.
        (Site("resid_pre", 0), edits.zero(), "last", 2 * (7 + 7 + 7), 2 * (7 + 7 + 7)),
        (Site("resid_pre", 1), edits.zero(), "last", 1 * (7 + 7 + 7), 1 * (7 + 7 + 7)),
        (Site("resid_pre", 1), edits.zero(positions=AT), "last", 3 + 5 + 6, 3 + 3 + 2),
        (Site("resid_pre", 0), edits.zero(positions=[2, 1]), "last", 2 * 3 * 6, 2 * 3 * 6),
        (Site("z", 0), edits.zero(heads=[1], positions=AT), "last", 2 * 14, 2 * (3 + 3 + 2)),
        (Site("resid_post", 0), edits.zero(positions=AT), "last", 3 + 5 + 6, 3 + 3 + 2),
        (Site("k", 1), edits.zero(), "last", 7 + 7 + 7, 7 + 7 + 7),
        (Site("v", 1), edits.zero(positions=AT), "last", 3 + 5 + 6, 3 + 3 + 2),
        # In the last block these streams change their own row alone, and the last row is read.
        (Site("z", 1), edits.zero(), "last", 1 + 3 + 5, 1 + 1 + 1),
        (Site("neuron", 1), edits.zero(neurons=[3]), "last", 1 + 3 + 5, 1 + 1 + 1),
        (Site("attn_out", 1), edits.zero(positions=0), "last", 0, 0),
        # What writes patterns, or is read at all positions, has all positions.
        (Site("pattern", 1), edits.zero(), "last", 1 + 3 + 5, 1 + 3 + 5),
        (Site("z", 1), edits.zero(positions=0), "all", 7 + 7 + 7, 7 + 7 + 7),
        (Site("z", 1), edits.zero(), "all", 7 + 7 + 7, 7 + 7 + 7),
        # Above the last block no block is needed.
        (Site("resid_post", 1), edits.zero(), "last", 0, 0),
        (Site("final"), edits.zero(), "all", 0, 0),
    ],
    ids=lambda given: given.name if isinstance(given, edits.Edit) else str(given),
)
def test_the_tokens_sent_through_blocks_are_those_counted_by_hand(
    twin, watching, replayed, site, edit, rows, tokens, run
):
    model, cells = twin("GPT-2"), [{site: edit}]
    plan = replay.plan(model, PROMPTS, cells, reads=Reads(rows), check=0)
    assert plan.block_tokens == tokens
    assert plan.forwards == tokens / (2 * 21)
    with watching(model) as calls:
        found = replayed(model, PROMPTS, cells, Reads(rows), check=0)
    in_record = [(0, 3, 7), (1, 3, 7)]
    assert calls[:2] == in_record
    assert found.sent == tokens
    assert sum(count * positions for _, count, positions in calls[2:]) == run


def test_blocks_below_the_edit_and_positions_before_it_are_not_run(twin, watching):
    model = twin("Gemma 3")
    plan = replay.plan(model, PROMPTS, [{Site("mlp_out", 1): edits.zero(positions=AT)}], check=0)
    with watching(model) as calls:
        replay.run(plan, [0], lambda rows, logits: logits[:, 0])
    assert sorted(calls) == [(1, 1, 2), (1, 1, 3), (1, 1, 3), (2, 1, 2), (2, 1, 3), (2, 1, 3)]


def test_a_cell_that_writes_what_stands_there_runs_nothing(twin, watching):
    model = twin("Llama")
    sites = [Site("resid_pre", 1), Site("z", 0), Site("resid_mid", 1), Site("neuron", 1)]
    seen = sources(model, *sites)
    cells = [{site: edits.replace(seen[site])} for site in sites]
    cells += [{Site("q", 0): edits.scale(1.0), Site("v", 1): edits.add(torch.zeros(8))}]
    plan = replay.plan(model, PROMPTS, cells)
    assert plan.works == {} and plan.block_tokens == 0 and plan.checked == ()
    assert "5 cells × 3 prompts: 5 change nothing; 0.0 forward passes instead of 5" in str(plan)
    with watching(model) as calls:
        answers = replay.run(plan, range(5), lambda rows, logits: logits[:, 0])
    assert calls == [] and len(answers.values) == 0


def test_prompts_in_which_nothing_changes_are_not_run(twin, watching, replayed, naive):
    model, site = twin("GPT-NeoX"), Site("resid_pre", 1)
    tokens = PROMPTS.tokens.clone()
    tokens[1, 2] += 1
    source = capture(model, Prompts(tokens, LENGTHS), [site])[site]
    cells = [{site: edits.replace(source)}]
    with watching(model) as calls:
        found = replayed(model, PROMPTS, cells, check=0)
    assert calls[2:] == [(1, 1, 3)]  # from 2 on, and it has 5 tokens
    assert_close(found.logits[0], naive(model, PROMPTS, cells[0], Reads()), rtol=1e-5, atol=1e-5)
    assert found.logits[0][[0, 2]].equal(found.base[[0, 2]])


@pytest.mark.parametrize(("moved", "kept"), [(2, 4), (4, 2)])
def test_of_two_edits_at_one_site_either_may_be_the_one_that_changes_something(
    twin, replayed, naive, moved, kept
):
    model = twin("Llama")
    prompts = Prompts.of(torch.tensor([[3, 9, 4, 7, 5, 6], [8, 2, 6, 5, 9, 3]]))
    site = Site("resid_pre", 1)
    stands = capture(model, prompts, [site])[site]
    cell = {site: [edits.zero(positions=moved), edits.replace(stands, positions=kept)]}
    found = replayed(model, prompts, [cell], check=0)
    assert found.plan.works[0].start.tolist() == [moved, moved]
    assert_close(found.logits[0], naive(model, prompts, cell, Reads()), rtol=1e-5, atol=1e-5)


def test_cells_that_enter_higher_join_those_from_below_in_one_call(twin, watching):
    model = twin("Gemma 3")
    cells = [{Site("resid_pre", layer): edits.zero(positions=2)} for layer in (2, 0, 1)]
    plan = replay.plan(model, PROMPTS, cells, check=0)
    with watching(model) as calls:
        replay.run(plan, [0, 1, 2], lambda rows, logits: logits[:, 0])
    assert calls == [(0, 3, 5), (1, 6, 5), (2, 9, 5)]


def test_cells_edited_in_the_same_block_share_its_call_and_do_not_disturb_the_others(
    twin, watching, replayed, naive
):
    model = twin("Llama")
    cells = [
        {Site("z", 0): edits.zero(heads=[0], positions=2)},
        {Site("z", 0): edits.zero(heads=[3], positions=2), Site("neuron", 1): edits.zero()},
        {Site("mlp_out", 0): edits.scale(2.0, positions=2)},
        {Site("resid_pre", 0): edits.zero(positions=2)},
    ]
    with watching(model) as calls:
        found = replayed(model, PROMPTS, cells, check=0)
    # 3 prompts a cell: those edited inside the block in one call, the others in another.
    assert sorted(calls[2:]) == [(0, 3, 5), (0, 9, 5), (1, 3, 5), (1, 9, 5)]
    for cell, logits in zip(cells, found.logits, strict=True):
        assert_close(logits, naive(model, PROMPTS, cell, Reads()), rtol=1e-5, atol=1e-5)


def test_only_the_columns_that_are_read_are_computed(twin):
    model, calls = twin("Llama"), []
    cells = [{Site("resid_pre", 1): edits.zero()}]
    reads = Reads("last", torch.tensor([[4, 9], [1, 2], [3, 3]]))
    plan = replay.plan(model, PROMPTS, cells, reads=reads, check=0)
    handle = model.unembed.register_forward_hook(lambda *given: calls.append(given))
    try:
        answers = replay.run(plan, [0], lambda rows, logits: logits[:, 0])
    finally:
        handle.remove()
    assert answers.values.shape == (3, 2) and calls == []


@pytest.mark.parametrize("architecture", ["BERT", "native", "native, attention only"])
def test_a_model_whose_positions_are_not_saved_says_why(twin, watching, replayed, architecture):
    model = twin(architecture)
    cells = [{Site("resid_pre", 1): edits.zero(positions=AT)}]
    with watching(model) as calls:
        found = replayed(model, PROMPTS, cells, check=0)
    why = "not positions: its attention takes no cache of keys and values"
    assert why in str(found.plan.savings) and why in str(found.plan)
    assert not found.plan.savings.positions and found.plan.savings.layers
    assert calls[2:] == [(1, 3, 7)] and found.plan.block_tokens == 21


def test_a_model_whose_positions_are_saved_says_so(twin):
    plan = replay.plan(twin("Llama"), PROMPTS, [{Site("z", 0): edits.zero()}])
    assert str(plan.savings) == "saves layers, positions, reads"
    assert "1 cells × 3 prompts: 0 change nothing; 1.0 forward passes instead of 1" in str(plan)


def test_planning_runs_the_prompts_once(twin, watching):
    model = twin("Qwen 3")
    cells = [{Site("z", layer): edits.zero(heads=[h])} for layer in (0, 1) for h in range(4)]
    with watching(model) as calls:
        replay.plan(model, PROMPTS, cells)
    assert calls == [(0, 3, 7), (1, 3, 7)]


def test_what_differs_by_rounding_alone_is_the_recorded_run_to_the_last_bit(twin, replayed):
    model = twin("GPT-2")
    cell = {Site("resid_pre", 0): edits.scale(1 + 1e-7, positions=[1])}
    found = replayed(model, PROMPTS, [cell], check=0)
    assert found.plan.block_tokens > 0 and found.trail.below_rounding == 3
    assert found.logits[0].equal(found.base)


@pytest.mark.parametrize("architecture", ["GPT-2", "GPT-NeoX", "Gemma 3"])
def test_the_last_mlp_sees_the_row_that_is_read_alone(twin, replayed, naive, architecture):
    model = twin(architecture)
    cells = [{Site(stream, 0): edits.scale(0.5)} for stream in ("z", "resid_pre", "v")]
    last = model.cfg.n_layers - 1
    cells += [{Site(stream, last): edits.scale(0.5)} for stream in ("z", "k", "mlp_out")]
    plan = replay.plan(model, PROMPTS, cells, check=0)
    seen: list[tuple[int, int]] = []
    handle = model.blocks[last].mlp.register_forward_pre_hook(
        lambda module, args: seen.append(tuple(args[0].shape[:2]))
    )
    replay.run(plan, range(len(cells)), lambda rows, logits: logits[:, 0])
    handle.remove()
    assert {positions for _, positions in seen} == {1}
    assert sum(rows for rows, _ in seen) == 3 * len(cells)
    found = replayed(model, PROMPTS, cells, check=0)
    for cell, logits in zip(cells, found.logits, strict=True):
        assert_close(logits, naive(model, PROMPTS, cell, Reads()), rtol=1e-5, atol=1e-5)


def test_cells_edited_in_the_last_block_need_not_change_all_prompts(twin, replayed, naive):
    """Prompts of one length are read together: there, some of the cells have no row."""
    model, lengths = twin("Mistral"), torch.tensor([8, 4, 7, 2])
    tokens = torch.randint(3, 60, (4, 8), generator=torch.Generator().manual_seed(0))
    prompts, site = Prompts(tokens, lengths), Site("v", 1)
    other = capture(model, prompts, [site])[site].clone()
    other[2, 0] += 1
    early = {site: edits.scale(0.5)}  # from the first position on, like what is written there
    cells = [
        {**early, Site("z", 1): edits.zero(heads=[0])},
        # In one prompt alone; and an edit with a position of its own for each prompt.
        {site: edits.replace(other), Site("z", 1): edits.scale(1.0, positions=lengths - 1)},
        {**early, Site("z", 1): edits.zero(heads=[1])},
    ]
    found = replayed(model, prompts, cells, check=0)
    for cell, logits in zip(cells, found.logits, strict=True):
        assert_close(logits, naive(model, prompts, cell, Reads()), rtol=1e-5, atol=1e-5)
