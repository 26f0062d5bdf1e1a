import pytest
import torch
from torch.testing import assert_close

from workbench import effects, metrics
from workbench.patching import Circuit, Graph, exact_edges, measure_circuits

DIFF = metrics.logit_diff


@pytest.mark.parametrize("run", ["clean", "corrupt"])
@pytest.mark.parametrize(
    ("architecture", "detail"),
    [
        ("GPT-2", "heads"),
        ("Qwen 3", "heads"),
        ("GPT-NeoX", "heads"),
        ("GPT-NeoX", "layers"),
        ("Gemma 3", "layers"),
        ("native, attention only", "heads"),
    ],
)
def test_an_edges_effect_is_that_of_running_all_others(
    twin, random_task, architecture, detail, run
):
    model, task = twin(architecture), random_task()
    graph = Graph.of(model, detail=detail)
    found = exact_edges(model, task, metric=DIFF, run=run, graph=graph)
    places = graph.edges.nonzero()
    drawn = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:20]]
    others = []
    for writer, reader in drawn.tolist():
        mask = graph.edges.clone()
        mask[writer, reader] = False
        others.append(Circuit(graph, mask))
    turned = task if run == "clean" else task.swapped()
    values = measure_circuits(model, turned, [Circuit.full(graph), *others], metric=DIFF)
    exact = found.per_prompt[drawn[:, 0], drawn[:, 1]]
    assert float(exact.abs().max()) > 0.1
    assert_close(exact, values[1:] - values[0], rtol=1e-4, atol=1e-5)
    assert found.run == run and found.method == "exact" and found.part == []
    assert (found.score[~graph.edges] == 0).all()


@pytest.mark.parametrize("source", ["zero", "mean"])
def test_other_sources_are_what_cut_edges_carry(twin, random_task, source):
    model, task = twin("Llama"), random_task()
    graph = Graph.of(model, detail="layers")
    found = exact_edges(model, task, metric=DIFF, graph=graph, source=source)
    mask = graph.edges.clone()
    mask[graph.edge("mlp 0 -> attention 1")] = False
    (value,) = measure_circuits(model, task, [Circuit(graph, mask)], metric=DIFF, source=source)
    effect = found.per_prompt[graph.edge("mlp 0 -> attention 1")]
    assert_close(effect, value - effects.measure(model, task, metric=DIFF), rtol=1e-4, atol=1e-5)
    assert found.source == source


def test_a_graph_with_too_many_edges_is_refused_with_their_number(twin, random_task):
    model, task = twin("Llama"), random_task()
    with pytest.raises(ValueError, match=r'82 edges.*most=50.*detail="layers"\) has 15'):
        exact_edges(model, task, metric=DIFF, most=50)
    assert exact_edges(model, task[0], metric=DIFF, most=82).score.shape == (11, 19)


def test_a_study_that_is_kept_is_not_done_again(twin, random_task, tmp_path):
    model, task = twin("GPT-2"), random_task()
    graph = Graph.of(model, detail="layers")
    first = exact_edges(model, task, metric=DIFF, graph=graph, keep=tmp_path)
    again = exact_edges(model, task, metric=DIFF, graph=graph, keep=tmp_path)
    assert torch.equal(first.per_prompt, again.per_prompt)
    assert "15 cells, " in first.cost and "15 cells, 15 of them kept" in again.cost
