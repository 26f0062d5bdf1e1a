"""How close an estimate is to the effect it stands for."""

import pytest
import torch
from torch.testing import assert_close
from transformer_lens.tools.analysis import attribution_patching as theirs

from hooks import Site, capture, edits, intervening, sites
from workbench import effects, metrics, models, tasks
from workbench.models import twins

ARCHITECTURES = ("GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3", "BERT")
DIFF = metrics.logit_diff


@pytest.mark.parametrize("at", ["clean", "corrupt"])
@pytest.mark.parametrize("stream", ["z", "v", "pattern", "attn_out", "final"])
def test_where_the_metric_is_linear_in_a_node_its_estimate_is_its_effect(
    padded, stream, at, other_run
):
    model, _ = twins.make("native, attention only")  # no norm: linear behind the last attention
    site = Site(stream) if stream == "final" else Site(stream, 1)
    found = effects.attribute(model, padded, [site], metric=DIFF, at=at)
    base = padded.clean if at == "clean" else padded.corrupt
    plain = effects.measure(model, padded, metric=DIFF, prompts=base)
    assert_close(found.baseline, plain, rtol=1e-5, atol=1e-5)
    source = other_run(model, padded, [site], at)[site]
    here = capture(model, base, [site])[site]
    at_nodes = [axis for axis in site.axes if axis in found.axes(site)]
    count = found[site][..., 0].numel()
    for node in range(0, count, max(1, count // 7)):
        index = torch.unravel_index(torch.tensor(node), found[site].shape[:-1])
        target = here.clone()
        full = dict(zip(at_nodes[1:], index, strict=True))
        where = tuple(full.get(axis, slice(None)) for axis in site.axes)
        target[where] = source[where]
        edit = {site: edits.replace(target)}
        exact = effects.measure(model, padded, metric=DIFF, prompts=base, edits=edit) - plain
        assert_close(found[site][index], exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_smaller_the_change_the_closer_the_estimate(architecture, even, everywhere, other_run):
    model, _ = twins.make(architecture)
    wanted = [s for s in everywhere(model) if s.stream not in ("scores", "pattern")]
    summed = [a for a in ("pos", "head", "neuron") if any(a in s.axes for s in wanted)]
    found = effects.attribute(model, even, wanted, metric=DIFF, summed=summed)
    here, there = capture(model, even.clean, wanted), other_run(model, even, wanted)
    for site in wanted:
        prompt = int(found[site].abs().argmax())
        ratio = {}
        for size in (0.01, -0.01):
            target = here[site] + size * (there[site] - here[site])
            edit = {site: edits.replace(target)}
            moved = effects.measure(model, even, metric=DIFF, edits=edit)
            ratio[size] = (moved - found.baseline)[prompt] / (size * found[site][prompt])
        # The mean over both directions is free of the second order, which is large in a twin.
        assert sum(ratio.values()) / 2 == pytest.approx(1, abs=0.02), site


@pytest.fixture
def with_gradients():
    """TransformerLens differentiates only where the weights want gradients."""
    switched = []

    def switch(model):
        switched.append(model)
        model.original_model.requires_grad_(True)

    yield switch
    for model in switched:
        model.original_model.requires_grad_(False)


def metric_of(task, row):
    answer, foil = int(task.answer[row, 0]), int(task.foil[row, 0])
    return lambda logits: logits[0, -1, answer] - logits[0, -1, foil]


def by_transformer_lens(model, task, config):
    """Their scores of each prompt pair: one call for each, because answers differ."""
    scores = []
    for row in range(len(task)):
        one = task[row]
        found = theirs.attribution_patch(
            model, one.clean.tokens, one.corrupt.tokens, metric_of(task, row), config=config
        )
        scores.append(found.node_scores)
    return scores


def ours(found, node, row):
    stream = {"embed": "embed", "attn_head_out": "z", "mlp_out": "mlp_out"}[node.kind]
    values = found[Site(stream) if stream == "embed" else Site(stream, node.layer)]
    index = (node.position,) if node.head is None else (node.position, node.head)
    return float(values[(*index, row)])


@pytest.mark.parametrize(
    ("architecture", "granularity"),
    [(a, "node") for a in ("GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3")]
    + [("GPT-2", "edge"), ("GPT-NeoX", "edge")],  # theirs need as many key heads as query heads
)
def test_at_the_corrupt_run_every_node_has_the_score_of_transformer_lens(
    architecture, granularity, padded, with_gradients
):
    """Theirs by edges too: what leaves a node by all its edges sums to the node's own score."""
    model, _ = twins.make(architecture)
    nodes = [Site("embed"), *sites.all(model, "z"), *sites.all(model, "mlp_out")]
    found = effects.attribute(model, padded, nodes, metric=DIFF, at="corrupt")
    with_gradients(model)
    config = theirs.EdgeAttributionConfig(granularity=granularity)
    for row, scores in enumerate(by_transformer_lens(model, padded, config)):
        length = int(padded.clean.lengths[row])
        assert len(scores) == length * (1 + 2 * (4 + 1) + (5 if architecture == "Gemma 3" else 0))
        largest = max(map(abs, scores.values()))
        for node, score in scores.items():
            assert ours(found, node, row) == pytest.approx(score, abs=2e-5 * largest), node


def test_replacing_by_zero_is_minus_the_slope_of_a_mask_on_the_head(tiny_gqa):
    task = tasks.ioi(tiny_gqa, prompts=4, seed=0)
    site, head = Site("z", 1), 2
    found = effects.attribute(tiny_gqa, task, [site], metric=DIFF, source="zero", summed=["pos"])
    mask = torch.ones(4, 1, 4, 1, requires_grad=True)
    with torch.enable_grad(), intervening(tiny_gqa, {site: lambda z: z * mask}):
        (slope,) = torch.autograd.grad(DIFF(tiny_gqa(task.clean), task).sum(), mask)
    assert_close(found[site], -slope[:, 0, :, 0].T, rtol=1e-4, atol=1e-6)
    ends = []
    for factor in (1.01, 0.99):
        edit = {site: edits.scale(factor, heads=[head])}
        ends.append(effects.measure(tiny_gqa, task, metric=DIFF, edits=edit))
    assert_close(found[site][head], -(ends[0] - ends[1]) / 0.02, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "metric", [metrics.answer_logprob, metrics.answer_prob, metrics.mean_logprob], ids=str
)
def test_any_metric_that_changes_smoothly_will_do(metric, padded, other_run):
    model, _ = twins.make("GPT-2")
    site = Site("resid_post", 1)
    found = effects.attribute(model, padded, [site], metric=metric, summed=["pos"])
    here, there = capture(model, padded.clean, [site])[site], other_run(model, padded, [site])[site]
    ends = [
        effects.measure(
            model, padded, metric=metric, edits={site: edits.replace(here + s * (there - here))}
        )
        for s in (0.01, -0.01)
    ]
    assert_close(found[site], (ends[0] - ends[1]) / 0.02, rtol=0.02, atol=1e-3)


def test_half_precision_is_close_and_says_so():
    exact, rough = models.load("tiny"), models.load("tiny", dtype=torch.bfloat16)
    task = tasks.ioi(exact, prompts=4, seed=0)
    expected = effects.attribute(exact, task, sites.all(exact, "z"), metric=DIFF)
    found = effects.attribute(rough, task, sites.all(rough, "z"), metric=DIFF)
    for site in expected:
        error = (found[site] - expected[site]).norm() / expected[site].norm()
        assert 0 < error < 0.1
    assert "computed in bfloat16" in found.caveat and not expected.caveat
