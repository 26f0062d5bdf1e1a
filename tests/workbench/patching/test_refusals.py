"""What makes no sense to ask of edges and circuits, and what is said then."""

from dataclasses import replace
from functools import partial

import pytest

from hooks import Site
from workbench import effects, metrics, patching


def test_no_circuit_no_size_and_too_large_a_share_are_refused(twin, random_task):
    model, task = twin("GPT-2"), random_task()
    with pytest.raises(ValueError, match="no circuit was given: name at least one"):
        patching.faithfulness(model, task, [], metric=metrics.logit_diff)
    scores = patching.attribute_edges(model, task, metric=metrics.logit_diff, along="nothing")
    ask = partial(patching.faithfulness_curve, model, task, scores, metric=metrics.logit_diff)
    with pytest.raises(ValueError, match="give at least one share of all edges below 1"):
        ask(fractions=[1.0])
    curve = ask(fractions=[0.5])
    assert curve.smallest(0.99) <= scores.graph.size
    with pytest.raises(ValueError, match=r"keeps 10000%: the most is -?\d+%, by \d+ edges; ask"):
        curve.smallest(100.0)


@pytest.mark.parametrize("size", [0, -3])
def test_no_prompt_at_a_time_is_refused(twin, random_task, size):
    model, task, metric = twin("GPT-2"), random_task(), metrics.logit_diff
    how = {"metric": metric, "batch_size": size}
    whole = patching.Circuit.full(patching.Graph.of(model))
    asks = [
        partial(patching.faithfulness, model, task, whole),
        partial(patching.attribute_edges, model, task),
        partial(patching.acdc, model, task, threshold=0.1),
        partial(effects.attribute, model, task, [Site("z", 0)]),
    ]
    for ask in asks:
        with pytest.raises(ValueError, match=f"batch_size={size}: at least one prompt has to run"):
            ask(**how)
    with pytest.raises(ValueError, match=f"batch_size={size}: at least one prompt has to run"):
        effects.values(model, task, [Site("z", 0)], batch_size=size)


def test_scores_of_edges_that_could_not_differ_are_refused(twin, random_task, unchecked_types):
    model, task = twin("GPT-2"), random_task()
    same = replace(task, corrupt=task.clean)
    with pytest.raises(ValueError, match="the corrupt prompts are the clean ones, so no edge"):
        patching.attribute_edges(model, same, metric=metrics.logit_diff)
    patching.attribute_edges(model, same, metric=metrics.logit_diff, source="zero", along="nothing")
    with pytest.raises(TypeError, match=r"quadrature='midpoint': give a rule with its fineness"):
        patching.attribute_edges(model, task, metric=metrics.logit_diff, quadrature="midpoint")
    with pytest.raises(ValueError, match="threshold is NaN: give a number, in the metric's unit"):
        patching.acdc(model, task, threshold=float("nan"))
