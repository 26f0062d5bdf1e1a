import pytest
import torch
from torch.testing import assert_close

from workbench import metrics, results
from workbench.patching import AcdcCircuit, Circuit, Graph, acdc, measure_circuits

DIFF = metrics.logit_diff


def by_hand(model, task, graph: Graph, metric: metrics.Metric, threshold: float) -> Circuit:
    """One edge after the other, one run for each, as the paper says."""

    def measured(mask: torch.Tensor) -> float:
        return float(measure_circuits(model, task, [Circuit(graph, mask)], metric=metric).mean())

    mask, value = graph.edges.clone(), measured(graph.edges)
    for reader in reversed(range(len(graph.readers))):
        for writer in reversed(graph.edges[:, reader].nonzero().flatten().tolist()):
            less = mask.clone()
            less[writer, reader] = False
            after = measured(less)
            if value - after < threshold:
                mask, value = less, after
    return Circuit(graph, mask)


@pytest.mark.parametrize(
    ("detail", "threshold"),
    [("layers", 0.3), pytest.param("heads", 0.05, marks=pytest.mark.slow)],
)
def test_many_edges_tried_at_once_give_what_one_at_a_time_gives(
    twin, random_task, detail, threshold
):
    model, task = twin("Llama"), random_task(2, 5)
    graph = Graph.of(model, detail=detail)
    expected = by_hand(model, task, graph, DIFF, threshold)
    assert 1 < len(expected) < graph.size
    for batch_size in (2, 9, 64):
        found = acdc(
            model, task, threshold=threshold, metric=DIFF, graph=graph, batch_size=batch_size
        )
        assert found.circuit.edges == expected.edges
        assert found.tried <= graph.size


def test_what_is_left_gives_the_metric_that_it_says(twin, random_task):
    model, task = twin("GPT-NeoX"), random_task(2, 5)
    found = acdc(model, task, threshold=0.1)
    logits = model(task.clean)[torch.arange(2), task.clean.last]
    kl = metrics.minus_kl(logits)
    (value,) = measure_circuits(model, task, [found.circuit], metric=kl)
    assert found.metric == "minus_kl" and found.start == pytest.approx(0, abs=1e-6)
    assert found.end == pytest.approx(float(value.mean()), abs=1e-5)
    fallen = found.cost[found.graph.edges & ~found.mask].sum()
    assert_close(fallen, torch.tensor(found.start - found.end), rtol=1e-3, atol=1e-4)
    assert (found.cost[found.mask] >= 0.1).all()


def test_a_threshold_above_everything_leaves_nothing_and_below_leaves_all(twin, random_task):
    model, task = twin("GPT-2"), random_task(2, 5)
    graph = Graph.of(model, detail="layers")
    everything = acdc(model, task, threshold=-1e9, metric=DIFF, graph=graph)
    nothing = acdc(model, task, threshold=1e9, metric=DIFF, graph=graph)
    assert len(everything.circuit) == graph.size and len(nothing.circuit) == 0
    assert nothing.tried == int(graph.edges[:, -1].sum())  # then nothing is read any more


def test_a_large_graph_is_refused_before_any_run(twin, random_task):
    with pytest.raises(ValueError, match=r"110 edges.*more than most=100"):
        acdc(twin("GPT-2"), random_task(2, 5), threshold=0.1, most=100)


def test_what_was_found_is_written_read_and_said(twin, random_task, tmp_path):
    model, task = twin("GPT-2"), random_task(2, 5)
    found = acdc(model, task, threshold=0.2, graph=Graph.of(model, detail="layers"))
    results.save(found, tmp_path / "acdc.nc")
    again = results.load(AcdcCircuit, tmp_path / "acdc.nc")
    assert again.circuit.edges == found.circuit.edges and again.sentence() == found.sentence()
    assert f"{len(found.circuit)} of 15 edges" in found.sentence()
    assert found.headline()["edges"] == len(found.circuit)
