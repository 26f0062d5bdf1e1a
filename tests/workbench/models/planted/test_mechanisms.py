"""Each planted model does what it is for."""

from itertools import combinations
from math import sqrt

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hooks import Site, capture, edits, head_out, intervening
from workbench import heads, metrics
from workbench.models import planted


@pytest.mark.parametrize(("name", "denoised", "noised"), [("or", 1.0, 0.0), ("and", 0.0, 1.0)])
def test_denoising_finds_the_parts_of_an_or_and_noising_those_of_an_and(
    name, denoised, noised, loaded, effect
):
    """Heimersheim & Nanda 2024: how to use and interpret activation patching."""
    model, task, truth = loaded(name)
    for role in ("first", "second"):
        for how, expected in (("denoising", denoised), ("noising", noised)):
            found = effect(model, task, truth.roles[role], how)
            assert_close(found, torch.full_like(found, expected), rtol=0, atol=1e-6)


def test_ablation_of_each_head_finds_the_parts_of_an_and_and_nothing_of_an_or(loaded):
    for name, expected in (("and", 8.0), ("or", 0.0)):
        model, task, truth = loaded(name)
        found = heads.ablate_each(model, task, metric=metrics.logit_diff).effect
        for head in truth.heads:
            assert found[head].item() == pytest.approx(-expected, abs=1e-4)
        assert found.sum().item() == pytest.approx(-2 * expected, abs=1e-4)


@pytest.mark.parametrize("name", ["induction-pair", "induction-pair-gqa", "induction-pair-llama"])
def test_the_previous_token_head_and_the_induction_head_attend_where_their_names_say(name, loaded):
    model, task, truth = loaded(name)
    (before,), (after,) = truth.roles["previous token"], truth.roles["induction"]
    seen = capture(model, task.clean, [Site("pattern", 0), Site("pattern", 1)])
    rows, end = torch.arange(len(task)), task.positions["END"]
    noted = seen[Site("pattern", 0)][:, before[1]].diagonal(-1, dim1=-2, dim2=-1)
    real = task.clean.mask[:, 1:].bool()
    assert_close(noted[real], torch.ones_like(noted[real]), rtol=0, atol=0)
    found = seen[Site("pattern", 1)][rows, after[1], end, task.positions["PREVIOUS"]]
    assert_close(found, torch.ones_like(found), rtol=0, atol=0)


def test_copies_share_pattern_and_output_map_and_decoys_only_one_of_them(loaded):
    model, task, truth = loaded("duplicate")
    original, copy, rotated = truth.roles["induction"]
    (pattern,), (output,) = truth.roles["same pattern"], truth.roles["same output"]
    seen = capture(model, task.clean, [Site("pattern", 1), Site("z", 1)])
    attention = model.blocks[1].attn
    maps = attention.W_V @ attention.W_O

    def alike(one, other) -> tuple[bool, bool, bool]:
        return (
            torch.equal(*(seen[Site("pattern", 1)][:, head[1]] for head in (one, other))),
            torch.equal(maps[one[1]], maps[other[1]]),
            torch.equal(*(seen[Site("z", 1)][:, :, head[1]] for head in (one, other))),
        )

    assert alike(original, copy) == (True, True, True)
    assert alike(original, rotated) == (True, True, False)
    assert alike(original, pattern) == (True, False, False)
    assert alike(original, output) == (False, True, False)


def test_under_grouped_queries_the_copy_shares_keys_and_values_and_the_rotated_one_does_not():
    truth = planted.truth("planted/duplicate-gqa")
    original, copy, rotated = (head[1] // 2 for head in truth.roles["induction"])
    assert original == copy != rotated


def test_any_one_of_the_redundant_heads_suffices_so_each_is_worth_a_quarter(loaded, measured):
    """Shapley values over all 16 coalitions: equal by symmetry, and they sum to the whole."""
    model, task, truth = loaded("redundant")
    every = truth.roles["induction"]
    worth = {}
    for size in range(5):
        for kept in combinations(every, size):
            gone = tuple(head for head in every if head not in kept)
            worth[frozenset(kept)] = float(measured(model, task, gone, "zero").mean())
    weights = {0: 1 / 4, 1: 1 / 12, 2: 1 / 12, 3: 1 / 4}
    for head in every:
        without = [kept for kept in worth if head not in kept]
        gains = (weights[len(s)] * (worth[s | {head}] - worth[s]) for s in without)
        assert sum(gains) == pytest.approx(8 / 4, abs=1e-4)


@pytest.mark.parametrize("name", ["backup", "backup-gpt2", "backup-llama"])
def test_the_backup_looks_away_until_the_first_head_is_gone(name, loaded):
    model, task, truth = loaded(name)
    (first,), (second,) = truth.roles["first"], truth.roles["backup"]
    site, rows = Site("pattern", second[0]), torch.arange(len(task))

    def looks() -> Tensor:
        pattern = capture(model, task.clean, [site])[site][:, second[1]]
        return pattern[rows, task.positions["END"], task.positions["PREVIOUS"]]

    assert_close(looks(), torch.zeros(len(task)), rtol=0, atol=0)
    with intervening(model, {Site("z", first[0]): edits.zero(heads=[first[1]])}):
        assert_close(looks(), torch.ones(len(task)), rtol=0, atol=0)


def test_a_backup_is_missed_by_single_ablation_and_found_by_the_set(loaded, effect):
    model, task, truth = loaded("backup")
    pair = (*truth.roles["first"], *truth.roles["backup"])
    for how in ("zero", "mean", "noising"):
        alone = [effect(model, task, (head,), how) for head in pair]
        assert_close(torch.stack(alone), torch.zeros(2, len(task)), rtol=0, atol=1e-5)
        assert_close(effect(model, task, pair, how), torch.ones(len(task)), rtol=0, atol=1e-5)


def test_self_repair_is_the_norms_share_and_the_backups(loaded, measured):
    """By hand: the stream is 240 wide and holds four ones beside what the heads say."""
    model, task, truth = loaded("self-repair")
    (first,), (second,) = truth.roles["first"], truth.roles["backup"]
    site = Site("z", first[0])
    seen = capture(model, task.clean, [site, Site("final")])
    size = seen[Site("final")].square().mean(dim=-1, keepdim=True).add(1e-5).sqrt()
    direct = head_out(model, seen, first[0])[:, :, first[1]] / size @ model.W_U
    frozen = metrics.logit_diff(direct, task)
    assert_close(frozen, torch.full_like(frozen, 2 * 0.5 / sqrt(9 / 240)), rtol=1e-3, atol=0)

    plain = measured(model, task, (), "noising")
    without_backup = plain - measured(model, task, (first, second), "zero")
    total = plain - measured(model, task, (first,), "zero")
    for found, expected in (
        (plain, 3 * 0.5 / sqrt(9 / 240)),
        (frozen - without_backup, 5.1640 - (7.7460 - 0.5 / sqrt(5 / 240))),  # the norm: 0.88
        (without_backup - total, 2 * 0.5 / sqrt(6 / 240) - 0.5 / sqrt(5 / 240)),  # backup: 2.86
    ):
        assert_close(found, torch.full_like(found, expected), rtol=2e-3, atol=0)


def test_the_program_needs_its_second_layer_only_where_the_order_is_wrong(loaded, effect):
    model, task, truth = loaded("brackets", prompts=12)
    found = effect(model, task, truth.roles["ever below"], "noising")
    order = task.group == task.templates.index("order")
    assert_close(found, order.float(), rtol=0, atol=1e-5)
