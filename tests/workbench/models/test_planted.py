"""The planted truth holds, by plain edits of running models: whatever finds it later is right."""

import functools
from itertools import combinations
from math import sqrt

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hooks import Site, capture, edits, head_out, intervening
from hooks.conformance import check_model
from workbench import heads, metrics, models, tasks
from workbench.models import planted, twins
from workbench.models.planted import vocabulary

TRAINED = ("induction-1", "induction-2", "induction-4", "induction-4-gqa")
WIRED = tuple(name for name in planted.NAMES if name not in TRAINED)
EVERY = (*WIRED, *planted.SHAPED)
DIRECTIONS = ("noising", "denoising")

QUICK = (*WIRED, "or-gpt2", "backup-gpt2", "or-llama", "duplicate-gqa-llama")
FEW = ("or", "duplicate-gqa", "backup-gpt2", "induction-pair-gqa-llama")


def each(names, *, quick=QUICK):
    """The test for each of these models, among the slow tests where it is not a quick one."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in names if name not in quick]
    return pytest.mark.parametrize("name", [name for name in names if name in quick] + slow)


@functools.cache
def loaded(name: str, *, prompts: int = 6) -> tuple[models.Model, tasks.Task, planted.Truth]:
    model = models.load(f"planted/{name}")
    return model, tasks.planted(model, prompts=prompts, seed=1), planted.truth(model)


def by_layer(some) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for layer, head in some:
        found.setdefault(layer, []).append(head)
    return found


def runs(task: tasks.Task, how: str):
    """The prompts that are run, and those whose activations are brought in."""
    return (task.corrupt, task.clean) if how == "denoising" else (task.clean, task.corrupt)


def measured(model, task, some, how: str, metric=metrics.logit_diff) -> Tensor:
    """The metric of each prompt after the intervention `how` on the heads `some`."""
    start, other = runs(task, how)
    if not some:
        return edited(model, task, start, {}, metric)
    sites = {Site("z", layer): chosen for layer, chosen in by_layer(some).items()}
    seen = capture(model, other, sites)
    real = seen.prompts.mask.clone()
    real[:, 0] = 0
    writes = {}
    for site, chosen in sites.items():
        weights = real[:, :, None, None] / real.sum()
        mean = (seen[site] * weights).sum(dim=(0, 1))
        edit = {
            "zero": edits.zero(heads=chosen),
            "mean": edits.mean(mean, heads=chosen),
        }.get(how, edits.replace(seen[site], heads=chosen))
        writes[site] = edit
    return edited(model, task, start, writes, metric)


def edited(model, task, start, writes, metric=metrics.logit_diff) -> Tensor:
    with torch.no_grad():
        if not writes:
            return metric(model(start), task, start)
        with intervening(model, writes):
            return metric(model(start), task, start)


# What is true of every planted model


@each(EVERY)
def test_every_known_number_holds_for_every_prompt(name):
    model, task, truth = loaded(name)
    assert len(truth.known) >= 6
    for known in truth.known:
        found = measured(model, task, known.heads, known.how)
        assert known.low <= float(found.min()) and float(found.max()) <= known.high, known


@each(EVERY)
def test_heads_are_either_of_the_mechanism_or_irrelevant_and_each_is_one_of_them(name):
    model, _, truth = loaded(name)
    every = [(n, h) for n in range(model.cfg.n_layers) for h in range(model.cfg.n_heads)]
    assert sorted([*truth.heads, *truth.irrelevant]) == every
    assert truth.irrelevant


@each(EVERY, quick=FEW)
def test_irrelevant_heads_do_something_that_changes_no_answer(name):
    model, task, truth = loaded(name)
    plain = {how: measured(model, task, (), how) for how in DIRECTIONS}
    seen = capture(model, task.clean, [Site("z", n) for n in range(model.cfg.n_layers)])
    for layer, head in truth.irrelevant:
        assert bool(seen[Site("z", layer)][:, :, head].any())
    for how in ("zero", "mean", "noising", "denoising"):
        found = measured(model, task, truth.irrelevant, how)
        base = plain["denoising" if how == "denoising" else "noising"]
        assert_close(found, base, rtol=0, atol=2e-5)


@each(EVERY, quick=FEW)
def test_silent_heads_write_nothing_and_orthogonal_ones_something(name):
    model, task, truth = loaded(name)
    for layer in range(model.cfg.n_layers):
        out = head_out(model, capture(model, task.clean, [Site("z", layer)]), layer)
        for role, says in (("silent", False), ("orthogonal", True)):
            for head in by_layer(truth.roles[role]).get(layer, []):
                assert bool(out[:, :, head].any()) is says


@each([name for name in EVERY if planted.truth(f"planted/{name}").residual])
def test_the_residual_stream_restores_the_answer_where_it_is_said_to(name):
    model, task, truth = loaded(name)
    assert len(truth.residual) == 3 * model.cfg.n_layers
    for (layer, role), expected in truth.residual.items():
        site = Site("resid_pre", layer)
        source = capture(model, task.clean, [site])[site]
        edit = edits.replace(source, positions=task.positions[role])
        found = edited(model, task, task.corrupt, {site: edit})
        assert_close(found, torch.full_like(found, expected), rtol=0, atol=1e-4)


def contributions(model, prompts) -> dict[str, Tensor]:
    """What each sender adds to the residual stream."""
    layers, mlps = range(model.cfg.n_layers), not model.cfg.attn_only
    sites = [Site("resid_pre", 0), *(Site("z", n) for n in layers)]
    sites += [Site("mlp_out", n) for n in layers if mlps]
    seen = capture(model, prompts, sites)
    found = {"input": seen[Site("resid_pre", 0)]}
    for n in layers:
        out = head_out(model, seen, n)
        found |= {f"a{n}.h{head}": out[:, :, head] for head in range(model.cfg.n_heads)}
        found |= {f"m{n}": seen[Site("mlp_out", n)]} if mlps else {}
    return found


def changed_by_each_edge(model, task, how: str) -> dict[str, float]:
    """Every edge alone carries what it carries in the other run, or nothing: how answers change.

    Without norms readers are linear, so a sender's difference is added to what they project.
    """
    start, other = runs(task, how)
    here, there = contributions(model, start), contributions(model, other)
    if how == "zero":
        there = {sender: torch.zeros_like(part) for sender, part in here.items()}
    plain = edited(model, task, start, {})
    found = {}

    def note(edge: str, site: Site, edit) -> None:
        found[edge] = float((edited(model, task, start, {site: edit}) - plain).abs().mean())

    for sender, before in here.items():
        change, sent = there[sender] - before, -1 if sender == "input" else int(sender[1])
        for n in range(max(sent, 0), model.cfg.n_layers):
            attention = model.blocks[n].attn
            for part in "qkv" if n > sent else "":
                for head, weight in enumerate(getattr(attention, f"W_{part.upper()}")):
                    edit = edits.add((change @ weight)[:, :, None], heads=[head])
                    note(f"{sender}->a{n}.h{head}<{part}>", Site(part, n), edit)
            if not model.cfg.attn_only and (n > sent or sender[0] == "a"):
                edit = edits.add(change @ model.blocks[n].mlp.W_in)
                note(f"{sender}->m{n}", Site("neuron_pre", n), edit)
        note(f"{sender}->logits", Site("final"), edits.add(change))
    return found


@pytest.mark.parametrize("how", DIRECTIONS)
@each(WIRED, quick=("or", "induction-pair-gqa", "brackets"))
def test_exactly_the_edges_that_were_planted_change_the_answer_alone(name, how):
    model, task, truth = loaded(name, prompts=4)
    found = changed_by_each_edge(model, task, how)
    assert truth.noising | truth.denoising < truth.circuit <= found.keys()
    assert {edge for edge, change in found.items() if change > 0.5} == getattr(truth, how)
    others = max(change for edge, change in found.items() if edge not in getattr(truth, how))
    assert others <= (1e-5 if name == "self-repair" else 0)  # its norm hears everything a little


@each(WIRED, quick=("or", "induction-pair-gqa", "brackets"))
def test_removing_an_edge_outside_the_circuit_changes_nothing(name):
    model, task, truth = loaded(name, prompts=4)
    found = changed_by_each_edge(model, task, "zero")
    outside = [change for edge, change in found.items() if edge not in truth.circuit]
    assert len(outside) > len(truth.circuit)
    assert max(outside) <= (1e-5 if name == "self-repair" else 0)


def architecture(name: str) -> str:
    shapes = {"gpt2": "GPT-2", "llama": "Llama"}
    with_mlps = name in ("and", "or", "redundant", "brackets", "neurons")
    native = "native" if with_mlps else "native, attention only"
    return shapes.get(name.rpartition("-")[2], native)


@each(EVERY, quick=("or", "induction-pair-gpt2", "induction-pair-gqa-llama"))
def test_planted_models_keep_the_promises_of_their_architecture(name):
    model, _, _ = loaded(name)
    found = check_model(model, planted.unwrapped(f"planted/{name}"))
    assert found.passed, str(found)
    twin, _ = twins.make(architecture(name))
    assert model.access == twin.access


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", EVERY)
def test_another_seed_plants_the_same_elsewhere(name, seed):
    model, task, truth = loaded(f"{name}/{seed}")
    for known in truth.known:
        found = measured(model, task, known.heads, known.how)
        assert known.low <= float(found.min()) and float(found.max()) <= known.high, known


# What each of them is for


def effect(model, task, some, how: str) -> Tensor:
    """Part of the gap between clean and corrupt that an intervention closes (or opens)."""
    clean, corrupt = (measured(model, task, (), d) for d in DIRECTIONS)
    found = measured(model, task, some, how)
    return (found - corrupt if how == "denoising" else clean - found) / (clean - corrupt)


@pytest.mark.parametrize(("name", "denoised", "noised"), [("or", 1.0, 0.0), ("and", 0.0, 1.0)])
def test_denoising_finds_the_parts_of_an_or_and_noising_those_of_an_and(name, denoised, noised):
    """Heimersheim & Nanda 2024: how to use and interpret activation patching."""
    model, task, truth = loaded(name)
    for role in ("first", "second"):
        for how, expected in (("denoising", denoised), ("noising", noised)):
            found = effect(model, task, truth.roles[role], how)
            assert_close(found, torch.full_like(found, expected), rtol=0, atol=1e-6)


def test_ablation_of_each_head_finds_the_parts_of_an_and_and_nothing_of_an_or():
    for name, expected in (("and", 8.0), ("or", 0.0)):
        model, task, truth = loaded(name)
        found = heads.ablate_each(model, task, metric=metrics.logit_diff).effect
        for head in truth.heads:
            assert found[head].item() == pytest.approx(-expected, abs=1e-4)
        assert found.sum().item() == pytest.approx(-2 * expected, abs=1e-4)


@pytest.mark.parametrize("name", ["induction-pair", "induction-pair-gqa", "induction-pair-llama"])
def test_the_previous_token_head_and_the_induction_head_attend_where_their_names_say(name):
    model, task, truth = loaded(name)
    (before,), (after,) = truth.roles["previous token"], truth.roles["induction"]
    seen = capture(model, task.clean, [Site("pattern", 0), Site("pattern", 1)])
    rows, end = torch.arange(len(task)), task.positions["END"]
    noted = seen[Site("pattern", 0)][:, before[1]].diagonal(-1, dim1=-2, dim2=-1)
    real = task.clean.mask[:, 1:].bool()
    assert_close(noted[real], torch.ones_like(noted[real]), rtol=0, atol=0)
    found = seen[Site("pattern", 1)][rows, after[1], end, task.positions["PREVIOUS"]]
    assert_close(found, torch.ones_like(found), rtol=0, atol=0)


def test_copies_share_pattern_and_output_map_and_decoys_only_one_of_them():
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


def test_any_one_of_the_redundant_heads_suffices_so_each_is_worth_a_quarter():
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
def test_the_backup_looks_away_until_the_first_head_is_gone(name):
    model, task, truth = loaded(name)
    (first,), (second,) = truth.roles["first"], truth.roles["backup"]
    site, rows = Site("pattern", second[0]), torch.arange(len(task))

    def looks() -> Tensor:
        pattern = capture(model, task.clean, [site])[site][:, second[1]]
        return pattern[rows, task.positions["END"], task.positions["PREVIOUS"]]

    assert_close(looks(), torch.zeros(len(task)), rtol=0, atol=0)
    with intervening(model, {Site("z", first[0]): edits.zero(heads=[first[1]])}):
        assert_close(looks(), torch.ones(len(task)), rtol=0, atol=0)


def test_a_backup_is_missed_by_single_ablation_and_found_by_the_set():
    model, task, truth = loaded("backup")
    pair = (*truth.roles["first"], *truth.roles["backup"])
    for how in ("zero", "mean", "noising"):
        alone = [effect(model, task, (head,), how) for head in pair]
        assert_close(torch.stack(alone), torch.zeros(2, len(task)), rtol=0, atol=1e-5)
        assert_close(effect(model, task, pair, how), torch.ones(len(task)), rtol=0, atol=1e-5)


def test_self_repair_is_the_norms_share_and_the_backups():
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


def test_the_program_needs_its_second_layer_only_where_the_order_is_wrong():
    model, task, truth = loaded("brackets", prompts=12)
    found = effect(model, task, truth.roles["ever below"], "noising")
    order = task.group == task.templates.index("order")
    assert_close(found, order.float(), rtol=0, atol=1e-5)


# Names, seeds, words


def test_the_same_name_is_the_same_bits_and_another_seed_other_heads():
    one, again = (models.load("planted/backup").origin for _ in range(2))
    assert one == again
    roles = [planted.truth(f"planted/backup/{seed}").roles["backup"] for seed in range(6)]
    assert len(set(roles)) > 1
    assert models.load("planted/backup/1").origin.name == "planted/backup/1"
    assert models.load("planted/backup/0").origin == one


def test_all_shapes_of_a_model_have_their_heads_in_the_same_places():
    for name in ("or", "redundant"):
        truths = [planted.truth(f"planted/{name}{shape}/3") for shape in ("", "-gpt2", "-llama")]
        assert truths[0].roles == truths[1].roles == truths[2].roles


def test_loading_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    for name in ("or", "or-gpt2", "or-llama"):
        planted.load(f"planted/{name}")
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["or", "induction-pair-gpt2", "duplicate-gqa-llama"])
def test_other_precisions_compute_the_same_answers(name, dtype):
    model = models.load(f"planted/{name}", dtype=dtype)
    task, truth = tasks.planted(model, prompts=4, seed=0), planted.truth(model)
    for known in truth.known[:2]:
        found = measured(model, task, known.heads, known.how).float()
        assert_close(found, torch.full_like(found, known.low + 1e-4), rtol=1e-2, atol=1e-2)


def test_a_prompt_starts_with_the_start_and_knows_its_words_only():
    model = models.load("planted/induction-pair")
    prompts = models.prompts(model, ["book ring unheard"])
    [said] = models.words(model, prompts)
    assert [word.strip() for word in said] == ["<s>", "book", "ring", "<unk>"]
    assert len(set(vocabulary.ORDINARY)) == 40


@pytest.mark.parametrize(
    "asked", ["planted/induction-pare", "planted/", "planted/or/x", "planted/tiny"]
)
def test_an_unknown_planted_model_lists_those_that_there_are(asked):
    hint = r"did you mean 'planted/induction-pair'" if asked.endswith("pare") else ""
    with pytest.raises(ValueError, match=rf"no planted model '{asked}'.*{hint}.*There are and, or"):
        models.load(asked)


def test_the_truth_of_a_model_that_was_not_planted_is_refused(tiny):
    with pytest.raises(ValueError, match="no planted model 'tiny'"):
        planted.truth(tiny)
    with pytest.raises(ValueError, match="no planted model 'tiny'"):
        tasks.planted(tiny, prompts=2, seed=0)
