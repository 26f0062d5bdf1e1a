import dataclasses

import pytest
import torch
from torch.testing import assert_close

from workbench import effects, metrics, results
from workbench.patching import (
    Circuit,
    Faithfulness,
    FaithfulnessCurve,
    Graph,
    attribute_edges,
    faithfulness,
    faithfulness_curve,
    measure_circuits,
)
from workbench.patching.faithfulness import FRACTIONS
from workbench.patching.shares import Shares, trapezoid

DIFF = metrics.logit_diff


def test_a_circuit_keeps_its_share_of_the_gap_between_all_edges_and_none(twin, random_task, half):
    model, task = twin("Llama"), random_task(4)
    graph = Graph.of(model)
    circuits = [half(graph, seed) for seed in range(3)]
    found = faithfulness(model, task, circuits, metric=DIFF)
    values = measure_circuits(model, task, circuits, metric=DIFF).mean(dim=1)
    clean = effects.measure(model, task, metric=DIFF).mean()
    corrupt = effects.measure(model, task, metric=DIFF, prompts=task.corrupt).mean()
    assert_close(found.faithfulness, (values - corrupt) / (clean - corrupt), rtol=1e-4, atol=1e-5)
    assert found.size.tolist() == [41, 41, 41] and found.edges == 82
    assert (found.low <= found.faithfulness).all() and (found.faithfulness <= found.high).all()


def test_all_edges_are_exactly_one_and_no_edges_exactly_zero(twin, random_task, half):
    model, task = twin("GPT-2"), random_task(4)
    graph = Graph.of(model)
    circuits = [Circuit.empty(graph), half(graph), Circuit.full(graph)]
    found = faithfulness(model, task, circuits, metric=DIFF)
    assert found.faithfulness[0] == 0 and found.faithfulness[2] == 1
    assert found.low[0] == found.high[0] == 0 and found.low[2] == found.high[2] == 1


def by_hand(*rows: list[float]) -> Shares:
    """The first row is without edges, the second with all of them."""
    return Shares(torch.tensor(rows))


def test_a_share_is_a_ratio_of_means_and_not_a_mean_of_ratios():
    found = by_hand([0.0, 0.0], [4.0, 1.0], [4.0, 0.0])
    assert_close(found.kept(0)[0], torch.tensor([0.0, 1.0, 0.8]))  # and not 0.5


def test_bounds_of_a_share_cover_the_true_one_at_their_rate():
    generator, covered, rounds = torch.Generator().manual_seed(0), 0, 200
    for seed in range(rounds):
        gap = 2 + torch.randn(40, generator=generator)
        part = 0.7 * gap + 0.5 * torch.randn(40, generator=generator)
        _, low, high = by_hand([0.0] * 40, gap.tolist(), part.tolist()).kept(seed)
        covered += bool(low[2] <= 0.7 <= high[2])
    assert 0.91 <= covered / rounds <= 0.985


def test_areas_are_those_of_mib_by_hand():
    weights = trapezoid([0.1, 0.5, 1.0])
    assert_close(weights, torch.tensor([0.2, 0.45, 0.25]))
    assert_close(trapezoid(FRACTIONS).sum(), torch.tensor(0.999))  # from 0.001, not from 0
    assert_close((weights * torch.ones(3)).sum(), torch.tensor(0.9))


def test_the_curve_begins_at_zero_ends_at_one_and_has_the_areas_of_its_points(twin, random_task):
    model, task = twin("Llama"), random_task(4)
    scores = attribute_edges(model, task, metric=DIFF, along="nothing")
    found = faithfulness_curve(model, task, scores, metric=DIFF, fractions=(0.1, 0.25, 0.5))
    assert_close(found.fraction, torch.tensor([0.0, 0.1, 0.25, 0.5, 1.0]))
    assert found.size.tolist() == [0, 8, 20, 41, 82]
    assert found.faithfulness[0] == 0 and found.faithfulness[-1] == 1
    circuits = [scores.circuit(size) for size in (8, 20, 41)]
    expected = faithfulness(model, task, circuits, metric=DIFF)
    assert_close(found.faithfulness[1:4], expected.faithfulness)
    heights, fractions = found.faithfulness[1:].tolist(), (0.1, 0.25, 0.5, 1.0)
    cpr = cmd = 0.0
    for at in range(3):  # as in MIB's evaluation
        width = fractions[at + 1] - fractions[at]
        cpr += width * (heights[at] + heights[at + 1]) / 2
        cmd += width * (abs(1 - heights[at]) + abs(1 - heights[at + 1])) / 2
    assert found.cpr.value == pytest.approx(cpr, rel=1e-5)
    assert found.cmd == pytest.approx(cmd, rel=1e-5)
    assert found.cpr.low <= cpr <= found.cpr.high and found.cpr.n == 4


def test_circuits_of_help_and_grown_ones_are_other_curves(twin, random_task):
    model, task = twin("Llama"), random_task(4)
    scores = attribute_edges(model, task, metric=DIFF, along="nothing")
    how = {"metric": DIFF, "fractions": (0.2, 0.5)}
    plain = faithfulness_curve(model, task, scores, **how)
    helping = faithfulness_curve(model, task, scores, by="help", **how)
    grown = faithfulness_curve(model, task, scores, how="greedy", **how)
    assert plain.by == "magnitude" and helping.by == "help" and grown.how == "greedy"
    assert not torch.equal(plain.per_prompt, helping.per_prompt)
    assert helping.cpr.value > plain.cpr.value  # edges that help first keep more than there is


def test_a_gap_that_is_not_there_is_refused(twin, random_task):
    model, task = twin("GPT-2"), random_task(4)
    same = dataclasses.replace(task, corrupt=task.clean)
    with pytest.raises(ValueError, match="there is nothing to be faithful to"):
        faithfulness(model, same, Circuit.full(Graph.of(model)), metric=DIFF)


def test_a_gap_that_may_be_chance_is_said_so(twin, random_task, half):
    assert not by_hand([0.0] * 4, [1.0, 1.2, 0.8, 1.1]).gap_is_uncertain
    assert by_hand([0.0] * 4, [1.0, -1.2, 0.8, 1.1]).gap_is_uncertain
    model, task = twin("GPT-2"), random_task(8)
    found = faithfulness(model, task, half(Graph.of(model)), metric=DIFF)
    assert "over these 8 prompts the gap" in found.sentence()


def test_a_circuit_of_another_model_is_refused(twin, random_task):
    model, task = twin("GPT-NeoX"), random_task()
    graph = dataclasses.replace(Graph.of(model), mlp="after")  # its blocks are parallel
    with pytest.raises(ValueError, match=r"the graph of GPTNeoXForCausalLM is .*mlp='beside'"):
        faithfulness(model, task, Circuit.full(graph), metric=DIFF)


def test_a_model_that_is_more_than_its_edges_is_found_out(twin, random_task, monkeypatch):
    model, task = twin("GPT-2"), random_task()
    plain = effects.measure
    monkeypatch.setattr(
        "workbench.patching.shares.measure", lambda *a, **how: plain(*a, **how) + 0.1
    )
    with pytest.raises(RuntimeError, match=r"with all edges logit_diff is off by 0\.1"):
        faithfulness(model, task, Circuit.full(Graph.of(model)), metric=DIFF)


def test_one_pair_of_prompts_has_a_share_but_no_bounds(twin, random_task, half):
    model, task = twin("GPT-2"), random_task()
    found = faithfulness(model, task[0], half(Graph.of(model)), metric=DIFF)
    assert found.faithfulness.isfinite().all() and found.low.isnan().all()
    assert "One prompt" in found.caveat


def test_what_was_found_is_written_read_and_said(twin, random_task, half, tmp_path):
    model, task = twin("Llama"), random_task(4)
    found = faithfulness(model, task, half(Graph.of(model)), metric=DIFF)
    results.save(found, tmp_path / "found.nc")
    again = results.load(Faithfulness, tmp_path / "found.nc")
    assert torch.equal(again.per_prompt, found.per_prompt) and again.sentence() == found.sentence()
    assert "edges at random (41 of 82 edges) keeps" in found.sentence()
    scores = attribute_edges(model, task, metric=DIFF, along="nothing")
    curve = faithfulness_curve(model, task, scores, metric=DIFF, fractions=(0.2, 0.5))
    results.save(curve, tmp_path / "curve.nc")
    again = results.load(FaithfulnessCurve, tmp_path / "curve.nc")
    assert again.cpr == curve.cpr and again.sentence() == curve.sentence()
    assert f"CPR {curve.cpr}" in curve.sentence() and curve.headline()["cmd"] == curve.cmd
    assert curve.smallest(1.0) <= 82
