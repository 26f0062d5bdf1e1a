"""What heads copy, count on, move and inhibit."""

import dataclasses

import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening
from workbench import lens, metrics, models, tasks
from workbench.heads.kinds import copying, moving, successors


def test_circuits_without_a_direction_err_as_often_as_they_should():
    generator = torch.Generator().manual_seed(1)
    families = [
        copying.rotation_test(torch.randn(10, 6, 6, generator=generator).double(), seed=at)
        for at in range(100)
    ]
    wrong = sum(bool((p <= 0.05).any()) for p in families)
    assert wrong <= 12  # more than that has a chance of 0.2 %


def test_a_circuit_that_repeats_is_positive_and_one_that_negates_is_negative():
    eye = torch.eye(6).double()
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    found = copying.positivity(torch.stack([eye, -2 * eye, torch.block_diag(turn, turn, turn)]))
    assert_close(found, torch.tensor([1.0, -1.0, 0.0]).double())


def test_a_token_is_copied_when_it_is_among_the_most_raised():
    directions = torch.eye(40).double()
    said = torch.zeros(3, 2, 40).double()
    said[0, 0, 0] = said[0, 1, 1] = 1.0  # says what it sees
    said[1, 0, 0] = said[1, 1, 1] = -1.0  # argues against it
    raised, lowered = copying.tops(said, directions, 2)
    assert raised[0].equal(torch.eye(2).double())
    assert lowered[1].equal(torch.eye(2).double())
    assert not raised[1].any() and not raised[2].any() and not lowered[2].any()


def test_a_head_that_counts_on_is_a_successor_head_and_one_that_copies_is_not():
    group = ["days"] * 6 + ["letters"] * 8
    following = torch.zeros(2, 14, 14)
    following[0] = torch.eye(14)  # the logit of each token's own successor
    following[1] = torch.eye(14).roll(1, 0)
    found = successors.judged(following.double(), group, seed=0)
    assert found.named(level=0.05).tolist() == [True, False]
    assert_close(found.null[0], torch.tensor((6 / 6 + 8 / 8) / 14).double())


def test_heads_that_say_anything_count_on_as_often_as_they_should(most_by_chance):
    generator, group = torch.Generator().manual_seed(0), ["days"] * 6 + ["letters"] * 8
    wrong = 0
    for family in range(60):
        logits = torch.randn(8, 14, 14, generator=generator).double()
        wrong += bool((successors.judged(logits, group, seed=family).p <= 0.05).any())
    assert wrong <= most_by_chance(60)


def test_orders_are_what_the_tokenizer_can_spell(default_model):
    orders = successors.Orders.of(default_model)
    names = models.words(default_model, torch.stack([orders.token, orders.next], dim=1))
    assert [" Monday", " Tuesday"] in names and [" A", " B"] in names
    assert [" Sunday", " Monday"] not in names


def test_what_moves_from_all_tokens_is_the_direct_effect_of_the_head(model):
    task = tasks.ioi(model, prompts=40, seed=0)
    length = int(task.clean.lengths.mode().values)
    task = task[(task.clean.lengths == length).nonzero()[:4, 0]]
    total = torch.zeros(8, len(task)).double()
    for at in range(length):
        here = torch.full((len(task),), at)
        moved = moving.moved(
            model, dataclasses.replace(task, positions={**task.positions, "IO": here}), batch_size=3
        )
        total += moved.attention[0] * moved.direct[0]
    expected = lens.direct_attribution(model, task).head_per_prompt.flatten(0, 1)
    assert_close(total.float(), expected, rtol=1e-4, atol=1e-5)


def test_inhibition_is_what_is_lost_beyond_the_direct_part_and_beyond_another_token(model, task):
    moved = moving.moved(model, task, batch_size=4, seed=3)
    found = moving.inhibition(model, task, moved, memory="1GB", seed=0)
    rows = torch.arange(len(task))
    end, s2 = task.positions["END"], task.positions["S2"]
    other = moving.other_tokens(task, seed=3)
    seen = capture(model, task.clean, [Site(name, 0) for name in ("z", "v", "pattern")])
    weight = seen[Site("pattern", 0)][rows, 3, end, s2]
    before = metrics.logit_diff(model(task.clean), task)
    for role, at, value in ((1, s2, found.score), (2, other, found.null)):
        cut = seen[Site("z", 0)].clone()
        cut[rows, end, 3] -= weight[:, None] * seen[Site("v", 0)][rows, at, 1]  # of its group
        with intervening(model, {Site("z", 0): edits.replace(cut, heads=[3])}):
            lost = before - metrics.logit_diff(model(task.clean), task)
        direct = (moved.attention[1] * moved.direct[role])[3]
        assert_close(value[3], (lost.double() - direct).mean(), rtol=1e-3, atol=1e-5)


def test_other_tokens_are_no_names_and_not_the_first(task):
    drawn = torch.stack([moving.other_tokens(task, seed=seed) for seed in range(20)])
    for role in task.positions:
        assert (drawn != task.positions[role]).all()
    assert (drawn > 0).all() and (drawn < task.positions["END"]).all()
    assert (drawn != drawn[0]).any()


def test_heads_for_which_every_token_is_the_same_inhibit_nothing(model, task):
    """With all values alike, what is left out is the same wherever it is from."""
    moved = moving.moved(model, task, batch_size=4)
    same = dataclasses.replace(moved, elsewhere=moved.carried, direct=moved.direct[[0, 1, 1]])
    found = moving.inhibition(model, task, same, memory="1GB", seed=0)
    assert_close(found.effect, torch.zeros(8).double(), rtol=0, atol=1e-9)
    assert (found.p == 1).all()


def test_the_values_of_a_token_are_what_the_weights_make_of_its_early_embedding(model):
    tokens = torch.tensor([30, 31, 32])
    from workbench.heads.kinds.reading import values_of_tokens

    values, order = values_of_tokens(model, tokens)
    embedded = model.original_model.model.embed_tokens(tokens)[:, None]
    block = model.blocks[0]
    early = embedded + block.mlp(block.ln2(embedded))
    weight = model.blocks[1].attn.W_V[1]  # heads 2 and 3 share it
    expected = (model.blocks[1].ln1(early)[:, 0] @ weight).double()
    for head in ((1, 2), (1, 3)):
        assert_close(values[order.index(head)], expected, rtol=1e-4, atol=1e-5)
