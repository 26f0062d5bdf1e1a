"""Which edges matter, by their scores."""

import dataclasses

import pytest
import torch

from workbench import results
from workbench.patching import EdgeScores


@pytest.fixture(scope="module")
def found(twin, random_task, attribute) -> EdgeScores:
    return attribute(twin("GPT-2"), random_task(4), along="nothing")


def test_the_most_important_edges_are_named_in_order(found):
    names = found.most_important(5)
    sizes = [float(found.score[found.graph.edge(name)].abs()) for name in names]
    assert sizes == sorted(found.score[found.graph.edges].abs().tolist(), reverse=True)[:5]
    helping = found.most_important(3, by="help")
    assert [float(-found.score[found.graph.edge(name)]) for name in helping] == sorted(
        (-found.score[found.graph.edges]).tolist(), reverse=True
    )[:3]
    assert len(found.most_important(10**6)) == found.graph.size
    assert names[0] in found.sentence() and found.headline()["edge"] == names[0]
    assert names[1] in found.table(3) and len(found.table(3).splitlines()) == 4


def test_circuits_of_scores_are_their_first_edges(found):
    assert set(found.circuit(7).edges) == set(found.most_important(7))
    assert set(found.circuit(7, by="help").edges) == set(found.most_important(7, by="help"))
    grown = found.circuit(7, how="greedy")
    assert len(grown) == 7 and "logits" in " ".join(grown.edges)
    assert "7 edges of EAP on random (magnitude, top)" in found.circuit(7).name


def test_scores_are_written_and_read_back(found, tmp_path):
    results.save(found, tmp_path / "scores.nc")
    again = results.load(EdgeScores, tmp_path / "scores.nc")
    assert again.graph == found.graph and torch.equal(again.per_prompt, found.per_prompt)
    assert again.sentence() == found.sentence()
    assert found.to_frame().shape[0] == found.score.numel()


def test_edges_that_all_prompts_agree_on_are_significant_and_others_are_not(found):
    graph, prompts = found.graph, 12
    noise = torch.randn(*graph.edges.shape, prompts, generator=torch.Generator().manual_seed(0))
    per_prompt = noise * graph.edges[..., None]
    place = graph.edge("head 0.1 -> q 1.2")
    per_prompt[place] += 5
    made = dataclasses.replace(
        found, per_prompt=per_prompt, score=per_prompt.mean(dim=-1),
        total=torch.zeros(1, prompts), gap=torch.zeros(1, prompts),
    )  # fmt: skip
    p = made.significance(seed=0)
    assert p[place] < 0.01 and (p[~graph.edges] == 1).all()
    assert int((p < 0.05).sum()) == 1


@pytest.mark.slow
def test_on_models_that_know_nothing_hardly_any_edge_is_significant(twin, random_task, attribute):
    model, families = twin("Llama"), 40
    wrong = 0
    for seed in range(families):  # answers and foils are drawn alike: no edge favours either
        scores = attribute(model, random_task(16, 5, seed=100 + seed), along="nothing")
        wrong += bool((scores.significance(seed=seed) <= 0.05).any())
    assert wrong <= 6  # of 40 with chance 0.05 each: more than 6 once in 300
