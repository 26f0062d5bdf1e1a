"""Scores of edges against TransformerLens, sums and theorems."""

import copy
import dataclasses

import pytest
import torch
from torch.testing import assert_close
from transformer_lens.tools.analysis import attribution_patching as theirs

from hooks import Prompts, Site, capture, gradients
from workbench import effects, metrics, models
from workbench.effects.quadrature import Quadrature
from workbench.models import twins
from workbench.patching import Graph, attribute_edges, exact_edges

DIFF = metrics.logit_diff
FINE = Quadrature("gauss-legendre", 24)


def by_our_name(node: theirs.Node) -> str:
    if node.kind in ("embed", "logits"):
        return node.kind
    kinds = {"attn_head_out": "head", "mlp_out": "mlp", "mlp_in": "mlp"}
    kind = kinds.get(node.kind, node.kind[0])
    return f"{kind} {node.layer}" + ("" if node.head is None else f".{node.head}")


@pytest.mark.parametrize("architecture", ["GPT-2", "GPT-NeoX"])
def test_attributed_edges_are_those_of_transformer_lens(random_task, architecture, attribute):
    model, task = twins.make(architecture)[0], random_task(3)
    task = task[[0]]
    model.original_model.requires_grad_(True)  # theirs needs it
    tokens = task.clean.tokens, task.corrupt.tokens
    settings = theirs.EdgeAttributionConfig(granularity="edge")
    peer = theirs.attribution_patch(model, *tokens, lambda x: DIFF(x, task)[0], settings)
    model.original_model.requires_grad_(False)
    graph = Graph.of(model)
    expected = torch.zeros(graph.edges.shape)
    for (writer, reader), score in peer.edge_scores.items():
        expected[graph.edge(f"{by_our_name(writer)} -> {by_our_name(reader)}")] += score
    found = attribute(model, task, run="corrupt", along="nothing")
    assert float(expected.abs().max()) > 0.5
    assert_close(found.score, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "Qwen 3", "GPT-NeoX", "native"])
def test_the_edges_that_leave_a_head_or_an_mlp_add_up_to_its_attribution(
    twin, random_task, architecture, attribute
):
    model, task = twin(architecture), random_task()
    found = attribute(model, task, along="nothing")
    graph = found.graph
    sites = [Site(stream, layer) for stream in ("z", "mlp_out") for layer in range(graph.layers)]
    here = gradients(model, task.clean, sites, of=lambda x: DIFF(x, task), logits="last")
    there = capture(model, task.corrupt, sites)
    for site in sites:
        change = (there[site] - here.activations[site]) * here[site]
        change = change.flatten(2) * task.clean.mask[..., None]
        heads = graph.heads if site.stream == "z" else 1
        node = change.reshape(*change.shape[:2], heads, -1).sum(dim=(1, 3)).T
        rows = graph.attention_writers(site.layer)
        if site.stream == "mlp_out":
            rows = slice(rows.stop, rows.stop + 1)
        assert float(node.abs().max()) > 0.01
        assert_close(found.per_prompt[rows].sum(dim=1), node, rtol=1e-4, atol=1e-5)
        assert_close(found.writer_score[rows], node.mean(dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("run", ["clean", "corrupt"])
def test_where_the_metric_is_linear_in_an_edge_attribution_is_exact(
    twin, random_task, run, attribute
):
    model, task = twin("native, attention only"), random_task()  # no norms, no MLPs
    estimate = attribute(model, task, run=run, along="nothing")
    exact = exact_edges(model, task, metric=DIFF, run=run)
    linear = [
        column
        for column, name in enumerate(exact.graph.readers)
        if name == "logits" or name.startswith("v 1")  # in the last layer
    ]
    assert float(exact.score[:, linear].abs().max()) > 0.1
    assert_close(estimate.per_prompt[:, linear], exact.per_prompt[:, linear], rtol=1e-4, atol=1e-5)
    curved = exact.graph.readers.index("q 1.0")
    assert (estimate.score - exact.score)[:, curved].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("architecture", "steps"), [("GPT-2", 24), ("Qwen 3", 24), ("GPT-NeoX", 24), ("Gemma 2", 48)]
)
def test_along_the_inputs_the_embeddings_edges_add_up_to_the_whole_change(
    twin, random_task, architecture, steps, attribute
):
    model, task = twin(architecture), random_task(seed=2)
    detail = "layers" if architecture == "Gemma 2" else "heads"
    graph, fine = Graph.of(model, detail=detail), Quadrature("gauss-legendre", steps)
    found = attribute(model, task, graph=graph, along="inputs", quadrature=fine)
    clean = effects.measure(model, task, metric=DIFF)
    corrupt = effects.measure(model, task, metric=DIFF, prompts=task.corrupt)
    assert found.part == ["embed"]
    assert_close(found.total[0], corrupt - clean, rtol=1e-4, atol=1e-4)
    assert_close(found.per_prompt[0].sum(dim=0), corrupt - clean, rtol=0.01, atol=0.01)
    assert_close(found.gap[0], found.per_prompt[0].sum(dim=0) - found.total[0])
    coarse = attribute(model, task, graph=graph, along="inputs", quadrature=Quadrature("left", 3))
    assert found.relative_gap < 0.01 < coarse.relative_gap
    assert "take more steps" in coarse.sentence()


def test_a_path_that_adds_up_is_not_complained_about(twin, random_task, attribute):
    found = attribute(twin("native, attention only"), random_task(), quadrature=FINE)
    assert found.relative_gap < 1e-3 and "take more steps" not in found.sentence()
    first = attribute(twin("GPT-2"), random_task(), along="nothing")
    assert "To first order only" in first.sentence()


@pytest.mark.parametrize("architecture", ["GPT-2", "GPT-NeoX"])
def test_along_activations_each_parts_edges_add_up_to_its_exact_effect(
    twin, random_task, architecture, attribute
):
    model, task = twin(architecture), random_task(2)
    fine = Quadrature("gauss-legendre", 12)
    found = attribute(model, task, along="activations", quadrature=fine)
    assert found.part == ["embed", "attention 0", "mlp 0", "attention 1", "mlp 1"]
    assert (found.gap[1:].abs().sum() / found.total[1:].abs().sum()) < 5e-3
    layers = exact_edges(model, task, metric=DIFF, graph=Graph.of(model, detail="layers"))
    whole = layers.per_prompt[layers.graph.edge("mlp 1 -> logits")]  # its only edge
    assert_close(found.total[-1], whole, rtol=1e-4, atol=1e-5)
    assert_close(found.per_prompt[found.graph.writers.index("mlp 1")].sum(dim=0), whole,
                 rtol=5e-3, atol=5e-3)  # fmt: skip
    heads = found.per_prompt[found.graph.attention_writers(1)].sum(dim=(0, 1))
    assert_close(heads, found.total[3], rtol=0.02, atol=0.01)


def test_two_ends_are_the_mean_of_both_directions(twin, random_task, attribute):
    model, task = twin("native, attention only"), random_task()
    ends = attribute(model, task, quadrature=Quadrature("trapezoid", 1))
    clean = attribute(model, task, along="nothing")
    corrupt = attribute(model, task, run="corrupt", along="nothing")
    assert_close(ends.per_prompt, (clean.per_prompt - corrupt.per_prompt) / 2, rtol=1e-4, atol=1e-5)


def test_the_direction_turns_the_sign_of_an_integrated_score_only(twin, random_task, attribute):
    model, task = twin("native, attention only"), random_task()
    fine = Quadrature("gauss-legendre", 12)
    noised = attribute(model, task, quadrature=fine)
    restored = attribute(model, task, run="corrupt", quadrature=fine)
    assert_close(noised.per_prompt, -restored.per_prompt, rtol=1e-3, atol=1e-4)
    assert_close(noised.help, restored.help, rtol=1e-3, atol=1e-4)
    assert torch.equal(noised.help, -noised.score) and torch.equal(restored.help, restored.score)


def test_an_edge_into_a_shared_key_is_the_sum_over_the_heads_that_share_it(random_task, attribute):
    grouped, weights = twins.make("Llama")
    wide = models.wrap(repeated(weights), name="repeated")
    task = random_task()
    few = attribute(grouped, task, along="nothing")
    many = attribute(wide, task, along="nothing")
    for layer in range(2):
        for part in ("q", "k", "v"):
            own = few.per_prompt[:, few.graph.part(layer, part)]
            each = many.per_prompt[:, many.graph.part(layer, part)]
            if part != "q":
                each = each.reshape(len(each), 2, 2, -1).sum(dim=2)
            assert float(own.abs().max()) > 0.01
            assert_close(own, each, rtol=1e-4, atol=1e-5)


def repeated(grouped):
    """The same weights with a key and a value for each query head."""
    from transformers import LlamaForCausalLM

    config = copy.deepcopy(grouped.config)
    config.num_key_value_heads = config.num_attention_heads
    wide, weights = LlamaForCausalLM(config), grouped.state_dict()
    for name, weight in weights.items():
        if "k_proj" in name or "v_proj" in name:
            weights[name] = weight.reshape(2, 8, 32).repeat_interleave(2, dim=0).reshape(32, 32)
    wide.load_state_dict(weights)
    return wide


@pytest.mark.parametrize("along", ["nothing", "inputs", "activations"])
@pytest.mark.parametrize("architecture", ["Llama", "GPT-NeoX"])
def test_layers_are_the_sums_of_their_heads(twin, random_task, along, architecture, attribute):
    model, task = twin(architecture), random_task()
    how = {"along": along, "quadrature": Quadrature("midpoint", 1)}
    fine = attribute(model, task, **how)
    coarse = attribute(model, task, **how, graph=Graph.of(model, detail="layers"))
    for name in ("attention 0 -> attention 1", "attention 0 -> logits", "embed -> attention 1"):
        writer, reader = name.split(" -> ")
        rows = slice(0, 1) if writer == "embed" else fine.graph.attention_writers(0)
        columns = fine.graph.attention_readers(1) if reader != "logits" else slice(-1, None)
        total = fine.per_prompt[rows, columns].sum(dim=(0, 1))
        assert_close(coarse.per_prompt[coarse.graph.edge(name)], total, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("along", ["nothing", "inputs", "activations"])
def test_a_prompts_scores_are_those_it_has_alone(twin, random_task, along, attribute):
    model, task = twin("Llama"), random_task()
    how = {"along": along, "quadrature": Quadrature("midpoint", 1)}
    together = attribute(model, task, **how)
    again = attribute(model, task, **how, batch_size=2)
    assert_close(again.per_prompt, together.per_prompt, rtol=1e-4, atol=1e-5)
    alone = attribute(model, task[2], **how)
    assert_close(alone.per_prompt[..., 0], together.per_prompt[..., 2], rtol=1e-4, atol=1e-5)
    assert_close(together.score, together.per_prompt.mean(dim=-1))


@pytest.mark.parametrize("source", ["zero", "mean", "mean per position"])
def test_other_sources_are_linear_estimates_of_their_exact_effects(
    twin, random_task, source, attribute
):
    model, task = twin("native, attention only"), random_task()
    found = attribute(model, task, along="nothing", source=source, batch_size=2)
    exact = exact_edges(model, task, metric=DIFF, source=source)
    assert_close(found.per_prompt[:, -1], exact.per_prompt[:, -1], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="run='corrupt' restores what the clean run has"):
        attribute(model, task, run="corrupt", source=source)


def test_no_parameter_gets_a_gradient_and_the_model_stays_as_it_was(random_task, attribute):
    model, task = twins.make("Llama")[0], random_task()
    model.original_model.requires_grad_(True)
    before = model(task.clean).detach()
    attribute(model, task)
    assert all(weight.grad is None for weight in model.original_model.parameters())
    assert_close(model(task.clean).detach(), before, rtol=0, atol=0)


def test_a_pair_that_does_not_differ_has_no_edges_that_matter(twin, random_task, attribute):
    """Where no pair differs at all the question is refused (tests of refusals)."""
    task = random_task()
    corrupt = Prompts(task.corrupt.tokens.clone(), task.corrupt.lengths)
    corrupt.tokens[1] = task.clean.tokens[1]
    found = attribute(twin("Llama"), dataclasses.replace(task, corrupt=corrupt))
    assert float(found.per_prompt[..., 1].abs().max()) == 0
    assert float(found.per_prompt[..., 0].abs().max()) > 0


def test_a_metric_without_a_slope_is_refused(twin, random_task):
    model, task = twin("GPT-2"), random_task()
    reference = model(task.clean)[torch.arange(3), task.clean.last]
    with pytest.raises(ValueError, match="the gradient of minus_kl at the clean run is zero"):
        attribute_edges(model, task, metric=metrics.minus_kl(reference), along="nothing")


def test_unknown_ways_are_refused(twin, random_task, attribute):
    model, task = twin("GPT-2"), random_task()
    with pytest.raises(Exception, match=r"no path along 'weights'|Type-check"):
        attribute(model, task, along="weights")
    with pytest.raises(Exception, match=r"no run 'both'|Type-check"):
        attribute(model, task, run="both")
