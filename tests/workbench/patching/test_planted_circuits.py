"""Circuits that are known, because they were put there, are found."""

from functools import cache

import pytest
import torch

from workbench import metrics, models, tasks
from workbench.models import planted
from workbench.patching import (
    Circuit,
    Graph,
    acdc,
    against_chance,
    agreement,
    attribute_edges,
    completeness,
    exact_edges,
    faithfulness,
    minimality,
)

DIFF = metrics.logit_diff
WIRED = (
    "and", "or", "induction-pair", "induction-pair-gqa", "and-llama", "or-gpt2",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("redundant", "backup", "brackets", "induction-pair-gqa-llama")
    ),
)  # fmt: skip
MANY = 10_000


@cache
def prepared(name: str):
    model = models.load(f"planted/{name}")
    return model, tasks.planted(model, prompts=4, seed=0), planted.truth(model), Graph.of(model)


@cache
def exactly(name: str, run: str):
    model, task, _, _ = prepared(name)
    return exact_edges(model, task, metric=DIFF, run=run, most=MANY)


@pytest.mark.parametrize("name", WIRED)
@pytest.mark.parametrize("run", ["clean", "corrupt"])
def test_exact_scores_find_the_edges_that_were_planted_and_no_others(name, run):
    _, _, truth, graph = prepared(name)
    edges = truth.noising if run == "clean" else truth.denoising
    right = Circuit.of(graph, edges, name="what was planted")
    scores = exactly(name, run)
    assert agreement([scores], right).auroc.tolist() == [1.0]
    assert float(scores.score[~right.mask].abs().max()) < 1e-4
    assert float(scores.score[right.mask].abs().min()) > 1


@pytest.mark.parametrize(
    ("name", "part", "join"), [("and", "clean", "corrupt"), ("or", "corrupt", "clean")]
)
def test_noising_finds_the_parts_of_an_and_and_denoising_those_of_an_or(name, part, join):
    _, _, truth, graph = prepared(name)
    gap = 8.0  # from +4 to -4
    into = [edge for edge in truth.circuit if "<v>" in edge or edge.endswith("->m1")]
    assert len(into) == 4
    for edge in into:
        place = graph.edge(edge)
        assert float(exactly(name, part).help[place]) / gap == pytest.approx(1, abs=1e-5)
        assert float(exactly(name, join).help[place]) == pytest.approx(0, abs=1e-5)
    last = graph.edge("m1->logits")
    assert float(exactly(name, "clean").help[last]) / gap == pytest.approx(1, abs=1e-5)
    assert float(exactly(name, "corrupt").help[last]) / gap == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", WIRED)
def test_what_was_planted_is_all_of_the_mechanism(name):
    model, task, truth, graph = prepared(name)
    circuit = Circuit.of(graph, truth.circuit, name="what was planted")
    found = faithfulness(model, task, circuit, metric=DIFF)
    assert float(found.faithfulness) == pytest.approx(1, abs=1e-5)
    whole = completeness(model, task, circuit, metric=DIFF, sets=6)
    assert float(whole.incompleteness.max()) < 1e-4


@pytest.mark.parametrize("name", ["and", "induction-pair", "induction-pair-gqa", "brackets"])
def test_cutting_edge_after_edge_leaves_what_noising_needs(name):
    model, task, truth, graph = prepared(name)
    found = acdc(model, task, threshold=0.1, metric=DIFF)
    assert set(found.circuit.edges) == set(Circuit.of(graph, truth.noising).edges)
    assert found.end == pytest.approx(found.start, abs=1e-4)


def test_of_an_or_cutting_leaves_one_branch_which_is_faithful_but_not_complete():
    model, task, truth, graph = prepared("or")
    half = acdc(model, task, threshold=0.1, metric=DIFF).circuit
    whole = Circuit.of(graph, truth.circuit)
    assert len(half) == 3 and len(half - whole) == 0
    assert float(faithfulness(model, task, half, metric=DIFF).faithfulness) == pytest.approx(1)
    found = completeness(model, task, half, metric=DIFF, search="greedy", sets=2)
    assert float(found.incompleteness[0]) < 1e-4
    assert float(found.incompleteness.max()) == pytest.approx(8, abs=1e-4)
    (head,) = [name for name in half.components if name.startswith("head")]
    assert found.worst == [head]  # the model has another one that stands in for it


def test_every_edge_of_an_and_is_needed_and_no_branch_of_an_or():
    for name, needed in (("and", 5), ("or", 1)):
        model, task, truth, graph = prepared(name)
        both = Circuit.of(graph, {*truth.noising, *truth.denoising})
        found = minimality(model, task, both, metric=DIFF)
        lost = {edge for edge, one in zip(found.edge, found.effect, strict=True) if one < -1}
        assert len(lost) == needed and "mlp 1 -> logits" in lost
        assert float(found.effect.min()) == pytest.approx(-8, abs=1e-4)


def test_what_was_planted_is_better_than_chance():
    model, task, truth, graph = prepared("and")
    circuit = Circuit.of(graph, truth.noising)
    found = against_chance(model, task, circuit, metric=DIFF, draws=39)
    assert found.p == pytest.approx(1 / 40)
    assert float(found.by_chance.max()) < 0.5


def test_saturated_attention_hides_edges_from_one_gradient_and_not_from_a_path():
    model, task, _, _ = prepared("induction-pair")
    one = attribute_edges(model, task, metric=DIFF, along="nothing")
    path = attribute_edges(model, task, metric=DIFF, along="inputs")
    found = agreement([one, path], exactly("induction-pair", "clean"))
    assert float(found.auroc[0]) < 0.9 < float(found.auroc[1])
    assert float(one.score[one.graph.edge("embed -> v 0.3")].abs()) < 1e-4
    assert torch.equal(found.found.sort().values, found.found)
