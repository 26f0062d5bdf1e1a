import pytest
import torch
from torch.testing import assert_close
from transformer_lens.tools.analysis import attribution_patching as theirs

from hooks import Prompts, Site, capture, edits, intervening, sites
from hooks.sites import STREAMS
from workbench import effects, metrics, models, tasks
from workbench.models import twins
from workbench.tasks import Task

ARCHITECTURES = ("GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3", "BERT")
DIFF = metrics.logit_diff


def everywhere(model):
    return [
        site
        for stream in STREAMS
        if stream in model.access.writable
        for site in sites.all(model, stream)
    ]


def other_run(model, task, wanted, at="clean"):
    return dict(capture(model, task.corrupt if at == "clean" else task.clean, wanted))


@pytest.mark.parametrize("at", ["clean", "corrupt"])
@pytest.mark.parametrize("stream", ["z", "v", "pattern", "attn_out", "final"])
def test_where_the_metric_is_linear_in_a_node_its_estimate_is_its_effect(padded, stream, at):
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
def test_the_smaller_the_change_the_closer_the_estimate(architecture, even):
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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_has_no_effect_and_batches_make_no_difference(architecture, padded):
    model, _ = twins.make(architecture)
    wanted = everywhere(model)
    found = effects.attribute(model, padded, wanted, metric=DIFF)
    single = effects.attribute(model, padded, wanted, metric=DIFF, batch_size=1)
    for site in wanted:
        assert found[site].shape[-1] == 3 and found[site].dtype == torch.float32
        assert_close(single[site], found[site], rtol=1e-4, atol=1e-5)
        for axis in {"pos", "query", "key"} & set(site.axes):
            place = found.axes(site).index(axis)
            for row, length in enumerate(padded.clean.lengths.tolist()):
                behind = found[site][..., row].narrow(place, length, 7 - length)
                assert not behind.any()


def test_ones_own_tensors_replace_like_the_other_run_whatever_the_batches(padded):
    model, _ = twins.make("Llama")
    wanted = [Site("z", 1), Site("resid_mid", 0), Site("pattern", 1)]
    expected = effects.attribute(model, padded, wanted, metric=DIFF)
    own = other_run(model, padded, wanted)
    for size in (1, 2, 32):
        found = effects.attribute(model, padded, wanted, metric=DIFF, source=own, batch_size=size)
        for site in wanted:
            assert_close(found[site], expected[site], rtol=1e-4, atol=1e-5)
    constant = {Site("z", 1): torch.full((4, 8), 0.5)}
    found = effects.attribute(model, padded, constant, metric=DIFF, source=constant)
    everywhere_half = {Site("z", 1): torch.full((3, 7, 4, 8), 0.5)}
    again = effects.attribute(model, padded, constant, metric=DIFF, source=everywhere_half)
    assert_close(found[Site("z", 1)], again[Site("z", 1)], rtol=0, atol=0)
    assert found.source == "own"


@pytest.mark.parametrize("kind", ["mean", "mean per position", "resample"])
def test_any_source_is_that_of_exact_interventions_whatever_the_batches(kind, even):
    model, _ = twins.make("Llama")
    wanted = [Site("z", 1), Site("resid_mid", 0)]
    written = effects.values(model, even, wanted, source=kind, run="corrupt")
    expected = effects.attribute(model, even, wanted, metric=DIFF, at="corrupt", source=written)
    for size in (1, 32):
        found = effects.attribute(
            model, even, wanted, metric=DIFF, at="corrupt", source=kind, batch_size=size
        )
        for site in wanted:
            assert_close(found[site], expected[site], rtol=1e-4, atol=1e-5)
    assert found.source == kind and f"source {kind}:" in found.sentence()


def test_what_is_summed_is_replaced_together_which_adds_up_to_first_order(padded):
    model, _ = twins.make("Llama")
    wanted = [Site("z", 1), Site("neuron", 0), Site("k", 0)]
    each = effects.attribute(model, padded, wanted, metric=DIFF)
    together = effects.attribute(model, padded, wanted, metric=DIFF, summed=("pos", "neuron"))
    assert together.axes(Site("z", 1)) == ("head", "batch")
    assert together.axes(Site("neuron", 0)) == ("batch",)
    assert together.axes(Site("k", 0)) == ("head", "batch") and together[Site("k", 0)].shape[0] == 2
    assert_close(together[Site("z", 1)], each[Site("z", 1)].sum(0), rtol=1e-5, atol=1e-6)
    assert_close(
        together[Site("neuron", 0)], each[Site("neuron", 0)].sum((0, 1)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("at", ["clean", "corrupt"])
def test_both_directions_are_each_others_on_the_swapped_task(at, padded):
    model, _ = twins.make("GPT-2")
    other = {"clean": "corrupt", "corrupt": "clean"}[at]
    wanted = [Site("z", 0), Site("resid_pre", 1)]
    found = effects.attribute(model, padded, wanted, metric=DIFF, at=at)
    swapped = effects.attribute(model, padded.swapped(), wanted, metric=DIFF, at=other)
    for site in wanted:
        assert_close(found[site], swapped[site], rtol=0, atol=0)
    assert found.at == at and at in found.sentence()


def wire(blank):
    """Head 0.0 writes +1 to the answer, of which head 1.0 takes 0.99 back; head 0.1 writes 0.5.

    One token a prompt, so attention is 1. The clean token is 1 in dimension 0, the corrupt is 0.
    """
    blank.original_model.tok_embed._original_component.weight.data[1, 0] = 1.0
    first, second = (block.attn for block in blank.blocks)
    first.v.weight.data[0, 0] = first.v.weight.data[8, 0] = 1.0
    first.o.weight.data[1, 0], first.o.weight.data[2, 8] = 1.0, 0.5
    second.v.weight.data[0, 1], second.o.weight.data[1, 0] = 1.0, -0.99

    def ids(n):
        return torch.tensor([[n], [n]])

    blank.original_model.head._original_component.weight.data[1, 2] = 1.0  # the answer reads both
    return Task(
        "by hand", Prompts.of(ids(1)), Prompts.of(ids(0)), ids(1), ids(9), {}, torch.zeros(2).long()
    )


def test_a_node_whose_effects_cancel_has_no_gradient_but_is_found_with_layers_held_fixed(blank):
    task, wanted = wire(blank), [Site("z", 0), Site("z", 1)]
    plain = effects.attribute(blank, task, wanted, metric=DIFF)
    assert_close(plain[Site("z", 0)][0, :2, 0], torch.tensor([-0.01, -0.5]), rtol=1e-4, atol=1e-6)
    dropped = effects.grad_drop(blank, task, wanted, metric=DIFF)
    assert_close(dropped[Site("z", 0)][0, :2, 0], torch.tensor([1.0, 0.5]), rtol=1e-4, atol=1e-6)
    assert_close(dropped[Site("z", 1)][0, 0, 0], torch.tensor(0.99), rtol=1e-4, atol=1e-6)
    best, *_ = dropped.strongest(1)
    assert (best.site, best.at) == (Site("z", 0), {"pos": 0, "head": 0})


@pytest.mark.parametrize("method", ["gradient", "exact softmax"])
@pytest.mark.parametrize("architecture", ["GPT-2", "GPT-NeoX", "Gemma 3"])
def test_grad_drop_is_the_mean_size_of_estimates_with_each_layer_written_as_constants(
    architecture, method, padded
):
    model, _ = twins.make(architecture)
    layers = model.cfg.n_layers
    wanted = [s for s in everywhere(model) if s.stream != "final"]
    found = effects.grad_drop(model, padded, wanted, metric=DIFF, method=method)
    own = other_run(model, padded, wanted)
    inside = {
        s for s in wanted if s.stream not in ("embed", "resid_pre", "resid_mid", "resid_post")
    }
    total = {site: 0.0 for site in wanted}
    for layer in range(layers):
        parts = [Site("attn_out", layer), Site("mlp_out", layer)]
        kept = [s for s in wanted if not (s in inside and s.layer == layer)]
        kept = [s for s in kept if s != Site("resid_mid", layer)]
        seen = capture(model, padded.clean, parts)
        with intervening(model, {part: edits.replace(seen[part]) for part in parts}):
            here = effects.attribute(model, padded, kept, metric=DIFF, source=own, method=method)
        for site in kept:
            total[site] = total[site] + here[site].abs()
    for site in wanted:
        if site.stream == "resid_mid":
            continue  # its own layer cannot be left out by constants: attn_out carries it
        assert_close(found[site], total[site] / (layers - (site in inside)), rtol=1e-3, atol=1e-5)
    assert found.method == f"GradDrop of {method}"


class TestAMetricWithoutSlope:
    def test_is_refused_where_it_has_its_best_value(self, padded):
        model, _ = twins.make("Llama")
        reference = capture(model, padded.clean, [], logits="last").logits[:, 0]
        closeness = metrics.minus_kl(reference)
        with pytest.raises(ValueError, match=r"minus_kl at the clean run is zero.*best"):
            effects.attribute(model, padded, [Site("z", 0)], metric=closeness)
        found = effects.attribute(model, padded, [Site("z", 0)], metric=closeness, at="corrupt")
        assert found[Site("z", 0)].any()

    def test_is_refused_when_it_counts(self, padded):
        model, _ = twins.make("Llama")
        with pytest.raises(ValueError, match="gradient of accuracy at the corrupt run is zero"):
            effects.attribute(model, padded, [Site("z", 0)], metric=metrics.accuracy, at="corrupt")


@pytest.mark.parametrize(
    "metric", [metrics.answer_logprob, metrics.answer_prob, metrics.mean_logprob], ids=str
)
def test_any_metric_that_changes_smoothly_will_do(metric, padded):
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


def test_bad_questions_are_refused_before_anything_runs(padded):
    model, _ = twins.make("Llama")

    def ask(wanted, **how):
        return effects.attribute(model, padded, wanted, **{"metric": DIFF, **how})

    with pytest.raises(ValueError, match="name at least one site"):
        ask([])
    with pytest.raises(Exception, match=r"clean.*or the .*corrupt.* run|Type-check"):
        ask([Site("z", 0)], at="dirty")
    with pytest.raises(Exception, match=r"no method 'magic'; there are gradient|Type-check"):
        ask([Site("z", 0)], method="magic")
    with pytest.raises(ValueError, match=r"cannot sum over 'neuron'.*pos, head"):
        ask([Site("z", 0)], summed=["neuron"])
    with pytest.raises(ValueError, match=r"write summed=\('pos',\)"):
        ask([Site("z", 0)], summed="pos")
    with pytest.raises(KeyError, match="source has nothing for z 1"):
        ask([Site("z", 1)], source={Site("z", 0): torch.zeros(4, 8)})
    with pytest.raises(ValueError, match=r"cannot replace z 1, of shape \(3, 7, 4, 8\)"):
        ask([Site("z", 1)], source={Site("z", 1): torch.zeros(5, 8)})
    with pytest.raises(ValueError, match="leads to the other run"):
        ask([Site("z", 1)], source="zero", method=effects.Integrated(path="inputs"))


def test_the_model_comes_out_as_it_went_in(padded):
    from hooks.conformance.check import attached
    from workbench.models.bridge import digest

    model, _ = twins.make("Llama")
    effects.attribute(model, padded, [Site("z", 0)], metric=DIFF)
    weights, hooks = digest(model.original_model), attached(model)
    for method in ("gradient", "exact softmax", effects.Integrated(steps=2)):
        effects.attribute(model, padded, [Site("q", 0), Site("k", 1)], metric=DIFF, method=method)
    effects.grad_drop(model, padded, [Site("k", 0)], metric=DIFF)
    effects.conductance(model, padded, [Site("z", 0)], metric=DIFF, steps=2)
    assert digest(model.original_model) == weights and attached(model) == hooks
    assert all(p.grad is None and not p.requires_grad for p in model.original_model.parameters())


def test_half_precision_is_close_and_says_so():
    exact, rough = models.load("tiny"), models.load("tiny", dtype=torch.bfloat16)
    task = tasks.ioi(exact, prompts=4, seed=0)
    expected = effects.attribute(exact, task, sites.all(exact, "z"), metric=DIFF)
    found = effects.attribute(rough, task, sites.all(rough, "z"), metric=DIFF)
    for site in expected:
        error = (found[site] - expected[site]).norm() / expected[site].norm()
        assert 0 < error < 0.1
    assert "computed in bfloat16" in found.caveat and not expected.caveat


def by_hand(**changed):
    z = torch.zeros(2, 2, 3)  # pos head batch
    z[1, 0] = torch.tensor([1.0, 2.0, 3.0])
    neuron = torch.zeros(2, 3, 3)
    neuron[0, 2] = -5.0
    fields = {
        "per_prompt": {Site("z", 1): z, Site("z", 0): z * 0.5, Site("neuron", 0): neuron},
        "baseline": torch.ones(3), "at": "clean", "method": "gradient",
        "source": "counterfactual", "summed": (), "metric": "logit_diff", "unit": "nats",
        "task": "a task", "task_digest": "", "model": "a model", "model_digest": "",
    }  # fmt: skip
    return effects.Attribution(**{**fields, **changed})


def test_an_attribution_answers_what_people_ask_of_it():
    found = by_hand()
    assert [(str(node), node.effect) for node in found.strongest(2)] == [
        ("neuron 0 pos 0 neuron 2", -5.0),
        ("z 1 pos 1 head 0", 2.0),
    ]
    assert found.stacked("z").shape == (2, 2, 2, 3)
    assert_close(found.stacked("z")[0], found[Site("z", 0)], rtol=0, atol=0)
    assert "Strongest of 14 nodes of a model for logit_diff (nats) on a task" in found.sentence()
    assert "neuron 0 pos 0 neuron 2 (-5.000); z 1 pos 1 head 0 (+2.000)" in found.sentence()
    with pytest.raises(KeyError, match="nothing was attributed to z 2; attributed: neuron 0, z 0"):
        found[Site("z", 2)]
    with pytest.raises(KeyError, match="attributed streams: z, neuron"):
        found.stacked("q")
    frame = found.to_frame()
    assert len(frame) == 4 + 4 + 6
    row = frame[(frame.stream == "neuron") & (frame.pos == 0) & (frame.neuron == 2)]
    assert row.effect.item() == -5 and row["head"].isna().all()
    assert frame.groupby("stream").effect.sum().to_dict() == {"neuron": -5, "z": 3}


def test_a_site_whose_nodes_miss_the_whole_by_more_than_a_thousandth_is_incomplete():
    found = by_hand(
        gap={Site("z", 0): 0.0009, Site("z", 1): 0.0011, Site("neuron", 0): float("nan")}
    )
    assert found.incomplete == [Site("z", 1), Site("neuron", 0)]
