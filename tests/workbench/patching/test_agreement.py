import dataclasses

import pytest
import torch
from torch.testing import assert_close

from workbench import metrics, results
from workbench.patching import (
    Agreement,
    Circuit,
    EdgeScores,
    Graph,
    Stability,
    agreement,
    attribute_edges,
    exact_edges,
    stability,
)

GRAPH = Graph(1, 1, 1, "none")  # five edges: to q, k, v; and of both writers to the logits


def made(per_prompt: list[list[float]], method: str = "made up", run: str = "clean") -> EdgeScores:
    """Scores of the five edges, in order, for each prompt."""
    values = torch.zeros(*GRAPH.edges.shape, len(per_prompt[0]))
    values[GRAPH.edges] = torch.tensor(per_prompt)
    nothing = torch.zeros(0, len(per_prompt[0]))
    return EdgeScores(
        graph=GRAPH, score=values.mean(dim=-1), per_prompt=values, part=[], total=nothing,
        gap=nothing, method=method, run=run, quadrature="", source="counterfactual",
        metric="logit_diff", unit="nats", task="by hand", task_digest="", model="a model",
        model_digest="",
    )  # fmt: skip


def test_the_order_of_five_edges_by_hand():
    assert [GRAPH.name(*place) for place in GRAPH.edges.nonzero().tolist()] == [
        "embed -> q 0.0", "embed -> k 0.0", "embed -> v 0.0", "embed -> logits",
        "head 0.0 -> logits",
    ]  # fmt: skip


def test_prompts_that_agree_give_the_same_circuit_however_they_are_drawn():
    found = stability(made([[5.0] * 6, [0.0] * 6, [4.0] * 6, [1.0] * 6, [3.0] * 6]), 2, seed=0)
    assert (found.jaccard == 1).all() and len(found.jaccard) == 100 * 99 / 2
    assert found.kept[GRAPH.edges].tolist() == [1, 0, 1, 0, 0]
    assert "overlap by 1.00" in found.sentence() and "; stable" in found.sentence()


def test_two_prompts_that_disagree_overlap_as_often_as_they_are_drawn_alike():
    # One edge of two: the first prompt names q, the second k. A sample of both names q, a tie.
    scores = made([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    found = stability(scores, 1, resamples=2000, seed=0)
    share = float(found.kept[GRAPH.edge("embed -> k 0.0")])
    assert share == pytest.approx(0.25, abs=0.03)
    assert float(found.jaccard.mean()) == pytest.approx(0.75**2 + 0.25**2, abs=0.03)
    assert "not stable" in found.sentence()


def test_stability_by_help_looks_at_signs_in_both_runs():
    values = [[-5.0] * 4, [4.0] * 4, [0.0] * 4, [0.0] * 4, [0.0] * 4]
    noised, restored = made(values), made(values, run="corrupt")
    assert stability(noised, 1, by="help").kept[GRAPH.edge("embed -> q 0.0")] == 1
    assert stability(restored, 1, by="help").kept[GRAPH.edge("embed -> k 0.0")] == 1
    with pytest.raises(ValueError, match="6 of 5 edges"):
        stability(noised, 6)


def test_agreement_with_a_circuit_by_hand():
    truth = Circuit.of(GRAPH, ["embed -> q 0.0", "embed -> v 0.0"], name="what was planted")
    right = made([[5.0], [0.0], [-4.0], [1.0], [3.0]], "right")
    wrong = made([[0.0], [5.0], [0.0], [5.0], [5.0]], "wrong")
    blind = made([[1.0]] * 5, "blind")
    half = made([[5.0], [1.0], [1.0], [0.0], [0.0]], "half a tie")
    found = agreement([right, wrong, blind, half], truth)
    # "half a tie": pairs won 3 + (2 + 1/2), of six
    assert_close(found.auroc, torch.tensor([1.0, 0.0, 0.5, 5.5 / 6]))
    assert_close(found.found, torch.tensor([1.0, 0.0, 0.5, 0.5]))
    assert found.correlation.isnan().all()
    assert "2 of 5 edges of what was planted (AUROC): right 1.00, wrong 0.00" in found.sentence()
    signed = agreement([right], truth, by="help")
    assert_close(signed.auroc, torch.tensor([0.5]))  # v first, q last


def test_agreement_with_exact_effects_by_hand():
    exact = made([[4.0], [0.0005], [-3.0], [2.0], [0.0]], "exact")
    other = made([[3.0], [0.0], [4.0], [2.0], [1.0]], "other")
    found = agreement([exact, other], exact)
    assert found.size == 3
    assert_close(found.auroc, torch.tensor([1.0, 1.0]))
    # ranks 5 2 4 3 1 and 4 1 5 3 2: 1 - 6 * (1 + 1 + 1 + 0 + 1) / (5 * 24)
    assert_close(found.correlation, torch.tensor([1.0, 0.8]))


def test_scores_of_another_graph_are_refused():
    with pytest.raises(ValueError, match="give scores of the same graph"):
        agreement([made([[1.0]] * 5)], Circuit.full(Graph(2, 1, 1, "none")))


def test_estimates_agree_with_the_truth_and_the_truth_with_itself(twin, random_task):
    model, task = twin("GPT-2"), random_task(4)
    exact = exact_edges(model, task, metric=metrics.logit_diff)
    each = [
        attribute_edges(model, task, metric=metrics.logit_diff, along=along)
        for along in ("nothing", "inputs", "activations")
    ]
    found = agreement([*each, exact], exact)
    assert found.correlation[3] == pytest.approx(1) and found.auroc[3] == 1
    assert (found.correlation[:3] > 0.5).all() and (found.auroc[:3] > 0.6).all()


def test_what_was_found_is_written_and_read(tmp_path):
    scores = made([[5.0, 1.0], [0.0, 2.0], [4.0, 2.0], [0.0, 0.0], [3.0, 0.0]])
    steady = stability(scores, 2, resamples=5)
    results.save(steady, tmp_path / "stability.nc")
    assert torch.equal(results.load(Stability, tmp_path / "stability.nc").kept, steady.kept)
    alike = agreement([scores, dataclasses.replace(scores, method="again")], scores)
    results.save(alike, tmp_path / "agreement.nc")
    again = results.load(Agreement, tmp_path / "agreement.nc")
    assert again.sentence() == alike.sentence() and again.headline() == alike.headline()
