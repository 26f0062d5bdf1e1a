"""What is found with each layer held fixed in turn."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, intervening
from workbench import effects, metrics
from workbench.models import twins
from workbench.tasks import Task

DIFF = metrics.logit_diff


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
    architecture, method, padded, everywhere, other_run
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
