"""An unknown word never means another choice, and a metric's name is not the metric."""

import pytest
import torch

from hooks import Site
from workbench import corpora, effects, heads, metrics, neurons, patching, probes, tasks

pytestmark = pytest.mark.usefixtures("unchecked_types")
DIFFERENCE = metrics.logit_diff
Z = [Site("z", 0)]


@pytest.fixture(scope="module")
def task(tiny):
    return tasks.ioi(tiny, prompts=4, seed=0)


@pytest.fixture(scope="module")
def scores(tiny, task):
    graph = patching.Graph.of(tiny, detail="layers")
    return patching.attribute_edges(tiny, task, metric=DIFFERENCE, along="nothing", graph=graph)


@pytest.fixture(scope="module")
def alike(tiny, task):
    return heads.similarity(tiny, task, seed=0)


def _clusters(word):
    return heads.cluster(torch.eye(3), [(0, 0), (0, 1), (1, 0)], source="none", linkage=word)


def _labelled():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2


WORDS = {
    "effects.values run": (
        lambda m, t, w: effects.values(m, t, Z, run=w),
        "clean, corrupt",
    ),
    "effects.exact run": (
        lambda m, t, w: effects.exact(m, t, [], metrics=[DIFFERENCE], run=w),
        "'clean' or the 'corrupt'",
    ),
    "effects.attribute at": (
        lambda m, t, w: effects.attribute(m, t, Z, metric=DIFFERENCE, at=w),
        '"clean" or the "corrupt"',
    ),
    "effects.attribute method": (
        lambda m, t, w: effects.attribute(m, t, Z, metric=DIFFERENCE, method=w),
        "gradient, exact softmax",
    ),
    "effects.attribute source": (
        lambda m, t, w: effects.attribute(m, t, Z, metric=DIFFERENCE, source=w),
        "'counterfactual'",
    ),
    "effects.optimal_constant run": (
        lambda m, t, w: effects.optimal_constant(m, t, *Z, metric=DIFFERENCE, run=w),
        "clean, corrupt",
    ),
    "effects.Integrated path": (lambda m, t, w: effects.Integrated(path=w), "site, inputs"),
    "effects.Quadrature rule": (lambda m, t, w: effects.Quadrature(w), "left, right"),
    "metrics.Metric rows": (
        lambda m, t, w: metrics.Metric("own", "nats", w, "all", lambda *_: 0),
        "last, all",
    ),
    "metrics.Metric columns": (
        lambda m, t, w: metrics.Metric("own", "nats", "all", w, lambda *_: 0),
        "answer, all",
    ),
    "heads.prune replace": (
        lambda m, t, w: heads.prune(m, [(0, 1)], replace=w),
        "zero, mean",
    ),
    "heads.ablate_each ablation": (
        lambda m, t, w: heads.ablate_each(m, t, metric=DIFFERENCE, ablation=w),
        "'zero', 'mean'",
    ),
    "heads.curve removal": (
        lambda m, t, w: heads.curve(m, t, {}, removal=w, draws=1),
        "'zero', 'mean'",
    ),
    "heads.mask_gradients ablation": (
        lambda m, t, w: heads.mask_gradients(m, t, metric=DIFFERENCE, ablation=w),
        "'zero', 'mean'",
    ),
    "heads.self_repair at": (
        lambda m, t, w: heads.self_repair(m, t, [(0, 0)], at=w),
        "'last' position or at 'all'",
    ),
    "heads.cluster linkage": (lambda m, t, w: _clusters(w), "average, complete, single"),
    "patching.sweep over": (
        lambda m, t, w: patching.sweep(m, t, "z", metric=DIFFERENCE, over=w),
        "position, role, head, neuron or all",
    ),
    "patching.sweep direction": (
        lambda m, t, w: patching.sweep(m, t, "z", metric=DIFFERENCE, direction=w),
        "'denoise' and 'noise'",
    ),
    "patching.neurons direction": (
        lambda m, t, w: patching.neurons(m, t, [(0, 1)], metric=DIFFERENCE, direction=w),
        "'denoise' and 'noise'",
    ),
    "patching.each run": (
        lambda m, t, w: patching.each(m, t, {}, metric=DIFFERENCE, run=w),
        "'clean' or the 'corrupt'",
    ),
    "patching.paths between": (
        lambda m, t, w: patching.paths(m, t, to="logits", metric=DIFFERENCE, between=w),
        "'free', 'frozen', 'linear'",
    ),
    "patching.path direction": (
        lambda m, t, w: patching.path(
            m, t, [(Site("z", 0), 0), "logits"], metric=DIFFERENCE, direction=w
        ),
        "'denoise' and 'noise'",
    ),
    "patching.causal_tracing severed": (
        lambda m, t, w: patching.causal_tracing(
            m, t, "resid_post", metric=DIFFERENCE, noise=patching.Noise(role="S1"), severed=w
        ),
        "'none', 'mlp_out', 'attn_out'",
    ),
    "patching.causal_tracing over": (
        lambda m, t, w: patching.causal_tracing(m, t, "resid_post", metric=DIFFERENCE, over=w),
        "'role' or 'position'",
    ),
    "patching.attribute_edges run": (
        lambda m, t, w: patching.attribute_edges(m, t, metric=DIFFERENCE, run=w),
        "clean, corrupt",
    ),
    "patching.attribute_edges along": (
        lambda m, t, w: patching.attribute_edges(m, t, metric=DIFFERENCE, along=w),
        "nothing, inputs, activations",
    ),
    "patching.exact_edges run": (
        lambda m, t, w: patching.exact_edges(m, t, metric=DIFFERENCE, run=w),
        "clean, corrupt",
    ),
    "patching.Graph detail": (
        lambda m, t, w: patching.Graph.of(m, detail=w),
        "heads, layers",
    ),
    "neurons.ablate_each ablation": (
        lambda m, t, w: neurons.ablate_each(m, t, [(0, 1)], metric=DIFFERENCE, ablation=w),
        "'zero', 'mean'",
    ),
    "neurons.screen ablation": (
        lambda m, t, w: neurons.screen(m, t, metric=DIFFERENCE, ablation=w),
        "'zero', 'mean'",
    ),
    "neurons.activity apart": (
        lambda m, t, w: neurons.activity(m, corpora.passages(m, length=24), apart=w),
        "documents, rows",
    ),
    "neurons.activity stream": (
        lambda m, t, w: neurons.activity(m, corpora.passages(m, length=24), stream=w),
        "neuron, neuron_pre",
    ),
    "probes.eraser method": (
        lambda m, t, w: probes.eraser(*_labelled(), method=w),
        "'leace', 'inlp' and 'mean'",
    ),
    "probes.probe_of formula": (
        lambda m, t, w: probes.probe_of(probes.moments(*_labelled()), w),
        "ridge, mass-mean",
    ),
    "probes.Placebos kind": (lambda m, t, w: probes.Placebos(w), "'norm', 'spread' and 'rank'"),
    "probes.surprisal before": (
        lambda m, t, w: probes.surprisal(m, t.clean, before=w),
        '"bos" or "nothing"',
    ),
    "probes.word_features token": (
        lambda m, t, w: probes.word_features(m, None, token=w),
        "'last', 'first' and 'mean'",
    ),
}


@pytest.mark.parametrize("asked", WORDS)
@pytest.mark.parametrize("word", ["means"])
def test_an_unknown_word_is_an_error_that_names_those_there_are(tiny, task, asked, word):
    ask, there = WORDS[asked]
    with pytest.raises(ValueError, match=there) as error:
        ask(tiny, task, word)
    assert repr(word) in str(error.value)


@pytest.mark.parametrize("word", ["cka2", "x", ""])
def test_a_measure_of_likeness_that_there_is_not_is_refused_by_name(alike, word):
    for ask in (alike.matrix, alike.beyond_chance, alike.alike, alike.order):
        with pytest.raises(ValueError, match=f"by='{word}': choose one of attention, output"):
            ask(word)
    for ask in (lambda: alike.most_alike(2, by=word), lambda: alike.table(by=word)):
        with pytest.raises(ValueError, match=f"by='{word}': choose one of attention, output"):
            ask()


def test_a_ranking_of_edges_that_there_is_not_is_refused_by_name(tiny, task, scores):
    for ask in (
        lambda: scores.most_important(3, by="helps"),
        lambda: scores.circuit(3, by="helps"),
        lambda: patching.stability(scores, 3, by="helps", resamples=3),
        lambda: patching.faithfulness_curve(
            tiny, task, scores, metric=DIFFERENCE, by="helps", fractions=[1.0]
        ),
        lambda: patching.agreement([scores], scores, by="helps"),
    ):
        with pytest.raises(ValueError, match=r"'helps'.*magnitude, help"):
            ask()
    with pytest.raises(ValueError, match=r"'best'.*top, greedy"):
        scores.circuit(3, how="best")


MEASURED = {
    "effects.exact": lambda m, t, g: effects.exact(m, t, [{}], metrics=[g]),
    "effects.plan": lambda m, t, g: effects.plan(m, t, [{}], metrics=[g]),
    "effects.measure": lambda m, t, g: effects.measure(m, t, metric=g),
    "effects.attribute": lambda m, t, g: effects.attribute(m, t, Z, metric=g),
    "effects.grad_drop": lambda m, t, g: effects.grad_drop(m, t, Z, metric=g),
    "effects.conductance": lambda m, t, g: effects.conductance(m, t, Z, metric=g),
    "effects.optimal_constant": lambda m, t, g: effects.optimal_constant(m, t, *Z, metric=g),
    "heads.ablate_each": lambda m, t, g: heads.ablate_each(m, t, metric=g),
    "heads.mask_gradients": lambda m, t, g: heads.mask_gradients(m, t, metric=g),
    "heads.learn_gates": lambda m, t, g: heads.learn_gates(m, t, metric=g),
    "heads.causal_gating": lambda m, t, g: heads.causal_gating(m, t, metric=g),
    "heads.shapley": lambda m, t, g: heads.shapley(m, t, metric=g),
    "heads.redundancy": lambda m, t, g: heads.redundancy(m, t, [(0, 0), (0, 1)], metric=g),
    "heads.interaction": lambda m, t, g: heads.interaction(m, t, [[(0, 0), (0, 1)]], metric=g),
    "heads.backups": lambda m, t, g: heads.backups(
        m, tasks.ioi(m, prompts=12, seed=0), (0, 0), metric=g
    ),
    "heads.curve": lambda m, t, g: heads.curve(m, t, {}, measures=[g], draws=1),
    "patching.sweep": lambda m, t, g: patching.sweep(m, t, "z", metric=g),
    "patching.paths": lambda m, t, g: patching.paths(m, t, to="logits", metric=g),
    "patching.attribute_edges": lambda m, t, g: patching.attribute_edges(m, t, metric=g),
    "patching.exact_edges": lambda m, t, g: patching.exact_edges(m, t, metric=g, most=10**6),
    "patching.acdc": lambda m, t, g: patching.acdc(m, t, threshold=1.0, metric=g, most=10**6),
    "patching.causal_tracing": lambda m, t, g: patching.causal_tracing(
        m, t, "resid_post", metric=g, noise=patching.Noise(role="S1")
    ),
    "neurons.ablate_each": lambda m, t, g: neurons.ablate_each(m, t, [(0, 1)], metric=g),
    "neurons.screen": lambda m, t, g: neurons.screen(m, t, metric=g),
}


@pytest.mark.parametrize("asked", MEASURED)
def test_the_name_of_a_metric_is_not_the_metric(tiny, task, asked):
    with pytest.raises(TypeError, match=r"'logit_diff' is no metric: .*metrics\.logit_diff, or"):
        MEASURED[asked](tiny, task, "logit_diff")


def test_a_metric_for_several_and_a_name_for_several_are_refused(tiny, task):
    with pytest.raises(TypeError, match=r"give a list: metrics=\[\.\.\.\]"):
        effects.exact(tiny, task, [{}], metrics=DIFFERENCE)
    with pytest.raises(TypeError, match="metrics='logit_diff': give a list"):
        effects.exact(tiny, task, [{}], metrics="logit_diff")
    with pytest.raises(TypeError, match="is no metric"):
        effects.measure(tiny, task, metric=lambda logits, task: logits[:, -1, 0])
