import pytest
import torch
from torch.testing import assert_close

from workbench import metrics, results
from workbench.patching import (
    AgainstChance,
    Circuit,
    Completeness,
    Graph,
    Minimality,
    against_chance,
    attribute_edges,
    completeness,
    faithfulness,
    measure_circuits,
    minimality,
)

DIFF = metrics.logit_diff


def test_taking_components_out_is_running_circuit_and_model_without_them(twin, random_task, half):
    model, task = twin("Llama"), random_task()
    circuit = half(Graph.of(model))
    found = completeness(model, task, circuit, metric=DIFF, sets=4, seed=1)
    assert len(found.removed) == 5 and found.removed[0] == []
    whole = Circuit.full(circuit.graph)
    for row, names in enumerate(found.removed):
        less, rest = circuit, whole
        for name in names:
            less, rest = less.without(name), rest.without(name)
        expected = measure_circuits(model, task, [less, rest], metric=DIFF)
        assert_close(found.of_circuit[row], expected[0], rtol=1e-5, atol=1e-5)
        assert_close(found.of_model[row], expected[1], rtol=1e-5, atol=1e-5)
    gaps = (found.of_circuit.mean(1) - found.of_model.mean(1)).abs()
    assert_close(found.incompleteness, gaps)
    assert found.worst == found.removed[int(gaps.argmax())]


def test_the_whole_model_is_complete(twin, random_task):
    model, task = twin("GPT-2"), random_task()
    whole = Circuit.full(Graph.of(model))
    for search in ("random", "greedy"):
        found = completeness(model, task, whole, metric=DIFF, search=search, sets=3)
        assert float(found.incompleteness.max()) < 1e-5


def test_a_greedy_search_takes_the_worst_component_each_time(twin, random_task, half):
    model, task = twin("native, attention only"), random_task()
    circuit = half(Graph.of(model))
    found = completeness(model, task, circuit, metric=DIFF, search="greedy", sets=2)
    assert [len(names) for names in found.removed] == [0, 1, 2]
    singles = [[name] for name in circuit.components if name != "embed"]
    gaps = []
    for (name,) in singles:
        pair = [circuit.without(name), Circuit.full(circuit.graph).without(name)]
        values = measure_circuits(model, task, pair, metric=DIFF).mean(dim=1)
        gaps.append(float((values[0] - values[1]).abs()))
    assert found.removed[1] == singles[gaps.index(max(gaps))]
    assert float(found.incompleteness[1]) == pytest.approx(max(gaps), abs=1e-5)
    assert found.removed[2][0] == found.removed[1][0]


def test_losing_an_edge_is_running_the_circuit_without_it(twin, random_task, half):
    model, task = twin("Llama"), random_task(4)
    graph = Graph.of(model)
    circuit = half(graph) & Circuit.of(graph, [graph.name(*place) for place in
                                              graph.edges.nonzero().tolist()[::3]])  # fmt: skip
    found = minimality(model, task, circuit, metric=DIFF)
    assert found.edge == circuit.edges
    (whole,) = measure_circuits(model, task, [circuit], metric=DIFF)
    for row in (0, len(circuit) // 2, len(circuit) - 1):
        less = circuit - Circuit.of(graph, [found.edge[row]])
        (value,) = measure_circuits(model, task, [less], metric=DIFF)
        assert_close(found.per_prompt[row], value - whole, rtol=1e-4, atol=1e-5)
    assert_close(found.effect, found.per_prompt.mean(dim=1))
    assert set(found.idle()) == {e for e, p in zip(found.edge, found.p, strict=True) if p > 0.05}


def test_edges_off_every_path_are_idle(twin, random_task):
    model, task = twin("GPT-2"), random_task()
    graph = Graph.of(model)
    circuit = Circuit.of(graph, ["embed -> logits", "embed -> q 1.0"])
    found = minimality(model, task, circuit, metric=DIFF)
    assert found.per_prompt[found.edge.index("embed -> q 1.0")].abs().max() < 1e-5
    assert "embed -> q 1.0" in found.idle()
    with pytest.raises(ValueError, match="minimality needs an edge to cut"):
        minimality(model, task, Circuit.empty(graph), metric=DIFF)


def test_random_circuits_are_of_the_same_size_and_the_circuit_is_one_of_them(twin, random_task):
    model, task = twin("Llama"), random_task(4)
    scores = attribute_edges(model, task, metric=DIFF)
    circuit = scores.circuit(50)
    found = against_chance(model, task, circuit, metric=DIFF, draws=19, seed=3)
    generator = torch.Generator().manual_seed(3)
    drawn = [Circuit.random(circuit.graph, 50, generator=generator) for _ in range(19)]
    expected = faithfulness(model, task, [circuit, *drawn], metric=DIFF).faithfulness
    assert found.found == pytest.approx(float(expected[0]), abs=1e-5)
    assert_close(found.by_chance, expected[1:], rtol=1e-5, atol=1e-5)
    as_close = int(((expected[1:] - 1).abs() <= abs(found.found - 1)).sum())
    assert found.p == pytest.approx((1 + as_close) / 20)


def test_the_whole_model_is_closest_to_itself(twin, random_task):
    model, task = twin("GPT-2"), random_task(4)
    found = against_chance(model, task, Circuit.full(Graph.of(model)), metric=DIFF, draws=3)
    assert found.found == 1 and found.p == 1  # all circuits of that size are the model


@pytest.mark.slow
def test_circuits_at_random_are_better_than_chance_as_often_as_chance_has_it(
    twin, random_task, half
):
    model, task = twin("native, attention only"), random_task(4)
    graph = Graph.of(model)
    p = [
        against_chance(model, task, half(graph, 1000 + seed), metric=DIFF, draws=19, seed=seed).p
        for seed in range(60)
    ]
    assert sum(one <= 0.1 for one in p) <= 13  # of 60 with chance 0.1 each: more once in 200
    assert sum(one <= 0.5 for one in p) >= 18


def test_what_was_found_is_written_read_and_said(twin, random_task, half, tmp_path):
    model, task = twin("Llama"), random_task(4)
    circuit = half(Graph.of(model))
    for found in (
        completeness(model, task, circuit, metric=DIFF, sets=2),
        minimality(model, task, circuit, metric=DIFF),
        against_chance(model, task, circuit, metric=DIFF, draws=3),
    ):
        path = tmp_path / f"{type(found).__name__}.nc"
        results.save(found, path)
        again = results.load(type(found), path)
        assert results.files.digest(again) == results.files.digest(found)
        assert again.sentence() == found.sentence() and "edges at random" in found.sentence()
        assert found.headline()
    assert {Completeness, Minimality, AgainstChance}  # all of them
