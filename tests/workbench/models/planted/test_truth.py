"""The planted truth holds, by plain edits of running models: whatever finds it later is right."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, head_out
from hooks.conformance import check_model
from workbench.models import planted, twins

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


@each(EVERY)
def test_every_known_number_holds_for_every_prompt(name, loaded, measured):
    model, task, truth = loaded(name)
    assert len(truth.known) >= 6
    for known in truth.known:
        found = measured(model, task, known.heads, known.how)
        assert known.low <= float(found.min()) and float(found.max()) <= known.high, known


@each(EVERY)
def test_heads_are_either_of_the_mechanism_or_irrelevant_and_each_is_one_of_them(name, loaded):
    model, _, truth = loaded(name)
    every = [(n, h) for n in range(model.cfg.n_layers) for h in range(model.cfg.n_heads)]
    assert sorted([*truth.heads, *truth.irrelevant]) == every
    assert truth.irrelevant


@each(EVERY, quick=FEW)
def test_irrelevant_heads_do_something_that_changes_no_answer(name, loaded, measured):
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
def test_silent_heads_write_nothing_and_orthogonal_ones_something(name, loaded, by_layer):
    model, task, truth = loaded(name)
    for layer in range(model.cfg.n_layers):
        out = head_out(model, capture(model, task.clean, [Site("z", layer)]), layer)
        for role, says in (("silent", False), ("orthogonal", True)):
            for head in by_layer(truth.roles[role]).get(layer, []):
                assert bool(out[:, :, head].any()) is says


@each([name for name in EVERY if planted.truth(f"planted/{name}").residual])
def test_the_residual_stream_restores_the_answer_where_it_is_said_to(name, loaded, edited):
    model, task, truth = loaded(name)
    assert len(truth.residual) == 3 * model.cfg.n_layers
    for (layer, role), expected in truth.residual.items():
        site = Site("resid_pre", layer)
        source = capture(model, task.clean, [site])[site]
        edit = edits.replace(source, positions=task.positions[role])
        found = edited(model, task, task.corrupt, {site: edit})
        assert_close(found, torch.full_like(found, expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("how", DIRECTIONS)
@each(WIRED, quick=("or", "induction-pair-gqa", "brackets"))
def test_exactly_the_edges_that_were_planted_change_the_answer_alone(
    name, how, loaded, changed_by_each_edge
):
    model, task, truth = loaded(name, prompts=4)
    found = changed_by_each_edge(model, task, how)
    assert truth.noising | truth.denoising < truth.circuit <= found.keys()
    assert {edge for edge, change in found.items() if change > 0.5} == getattr(truth, how)
    others = max(change for edge, change in found.items() if edge not in getattr(truth, how))
    assert others <= (1e-5 if name == "self-repair" else 0)  # its norm hears everything a little


@each(WIRED, quick=("or", "induction-pair-gqa", "brackets"))
def test_removing_an_edge_outside_the_circuit_changes_nothing(name, loaded, changed_by_each_edge):
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
def test_planted_models_keep_the_promises_of_their_architecture(name, loaded):
    model, _, _ = loaded(name)
    found = check_model(model, planted.unwrapped(f"planted/{name}"))
    assert found.passed, str(found)
    twin, _ = twins.make(architecture(name))
    assert model.access == twin.access


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", EVERY)
def test_another_seed_plants_the_same_elsewhere(name, seed, loaded, measured):
    model, task, truth = loaded(f"{name}/{seed}")
    for known in truth.known:
        found = measured(model, task, known.heads, known.how)
        assert known.low <= float(found.min()) and float(found.max()) <= known.high, known
