import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits
from workbench import effects, metrics
from workbench.effects import Integrated
from workbench.models import twins

DIFF = metrics.logit_diff


@pytest.mark.parametrize(
    ("architecture", "at"),
    [("GPT-2", "clean"), ("Llama", "corrupt"), ("Gemma 3", "clean"), ("BERT", "corrupt")],
)
def test_the_nodes_of_a_site_sum_to_the_effect_of_replacing_all_of_it(architecture, at, padded):
    model, _ = twins.make(architecture)
    wanted = [Site("z", 1), Site("resid_pre", 1)]
    found = effects.attribute(
        model, padded, wanted, metric=DIFF, at=at, method=Integrated("midpoint", 32)
    )
    base, other = padded.clean, padded.corrupt
    if at == "corrupt":
        base, other = other, base
    plain = effects.measure(model, padded, metric=DIFF, prompts=base)
    for site in wanted:
        source = {site: edits.replace(capture(model, other, [site])[site])}
        exact = effects.measure(model, padded, metric=DIFF, prompts=base, edits=source) - plain
        total = found[site].flatten(0, -2).sum(0)
        miss = float((total - exact).abs().mean() / exact.abs().mean())
        assert miss < 0.02
        assert found.gap[site] == pytest.approx(miss, rel=0.05, abs=2e-5)


def test_midpoints_four_times_as_fine_are_sixteen_times_as_exact(even):
    model, _ = twins.make("Llama")
    model.original_model.to(torch.float64)
    site = Site("attn_out", 1)
    gaps = [
        effects.attribute(model, even, [site], metric=DIFF, method=Integrated("midpoint", n)).gap[
            site
        ]
        for n in (8, 32)
    ]
    assert 8 < gaps[0] / gaps[1] < 32


def test_too_few_steps_are_flagged_and_enough_are_not(even):
    model, _ = twins.make("Llama")
    site = Site("z", 1)
    few = effects.attribute(model, even, [site], metric=DIFF, method=Integrated("left", 1))
    assert few.incomplete == [site] and few.gap[site] > 1e-3
    assert few.caveat.startswith("Caveat: at 1 of 1 sites") and few.caveat in few.sentence()
    many = effects.attribute(model, even, [site], metric=DIFF, method=Integrated())
    assert not many.incomplete and not many.caveat


@pytest.mark.parametrize("path", ["site", "inputs"])
def test_one_left_step_is_the_gradient_at_the_run(path, padded):
    model, _ = twins.make("Llama")
    wanted = [Site("z", 0), Site("k", 1), Site("resid_mid", 1)]
    plain = effects.attribute(model, padded, wanted, metric=DIFF)
    found = effects.attribute(
        model, padded, wanted, metric=DIFF, method=Integrated("left", 1, path=path)
    )
    for site in wanted:
        assert_close(found[site], plain[site], rtol=1e-5, atol=1e-6)


def test_one_right_step_along_the_inputs_has_the_other_runs_gradient(padded):
    model, _ = twins.make("Llama")
    wanted = [Site("z", 1), Site("neuron", 0)]
    method = Integrated("right", 1, path="inputs")
    found = effects.attribute(model, padded, wanted, metric=DIFF, method=method)
    other = effects.attribute(model, padded, wanted, metric=DIFF, at="corrupt")
    for site in wanted:  # the same gradient, but the change has the other sign
        assert_close(found[site], -other[site], rtol=1e-4, atol=1e-5)


def test_along_the_inputs_the_embeddings_sum_to_the_difference_of_the_runs(padded):
    model, _ = twins.make("GPT-2")
    method = Integrated("midpoint", 24, path="inputs")
    found = effects.attribute(
        model, padded, [Site("embed"), Site("z", 0)], metric=DIFF, method=method
    )
    difference = effects.measure(model, padded, metric=DIFF, prompts=padded.corrupt)
    difference = difference - found.baseline
    assert_close(found[Site("embed")].sum(0), difference, rtol=0.01, atol=1e-3)
    assert list(found.gap) == [Site("embed")] and found.gap[Site("embed")] < 0.01
    without = effects.attribute(model, padded, [Site("z", 0)], metric=DIFF, method=method)
    assert list(without) == [Site("z", 0)] and list(without.gap) == [Site("embed")]


def test_from_zero_it_is_that_of_knowledge_neurons(even):
    """a_i times the mean slope along alpha a: replacing by zero, with the sign turned round."""
    model, _ = twins.make("GPT-2")
    site = Site("neuron", 1)
    method = Integrated("midpoint", 32)
    found = effects.attribute(model, even, [site], metric=DIFF, method=method, source="zero")
    plain = effects.measure(model, even, metric=DIFF)
    zeroed = effects.measure(model, even, metric=DIFF, edits={site: edits.zero()})
    assert_close(found[site].sum((0, 1)), zeroed - plain, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("architecture", ["GPT-2", pytest.param("Llama", marks=pytest.mark.slow)])
def test_conductance_through_every_cut_is_the_difference_of_the_runs(architecture, padded):
    model, _ = twins.make(architecture)
    cuts = [Site("embed"), Site("resid_post", 0), Site("resid_post", 1), Site("final")]
    wanted = [*cuts, Site("z", 0)]
    found = effects.conductance(
        model, padded, wanted, metric=DIFF, steps=48 if architecture == "GPT-2" else 96
    )
    there = effects.measure(model, padded, metric=DIFF, prompts=padded.corrupt)
    for site in cuts:
        assert_close(found[site].sum(0), there - found.baseline, rtol=0.02, atol=5e-3)
        assert found.gap[site] < 0.01
    assert Site("z", 0) not in found.gap and found[Site("z", 0)].shape == (7, 4, 3)


def test_conductance_at_the_embeddings_is_their_integrated_gradient(padded):
    model, _ = twins.make("Llama")
    site = Site("embed")
    conducted = effects.conductance(model, padded, [site], metric=DIFF, steps=8)
    method = Integrated("trapezoid", 8, path="inputs")
    integrated = effects.attribute(model, padded, [site], metric=DIFF, method=method)
    assert_close(conducted[site], integrated[site], rtol=1e-3, atol=1e-4)


def test_batches_make_no_difference(padded):
    model, _ = twins.make("Llama")
    for method in (Integrated(steps=3), Integrated(steps=3, path="inputs")):
        found, single = (
            effects.attribute(
                model, padded, [Site("z", 0)], metric=DIFF, method=method, batch_size=size
            )
            for size in (32, 1)
        )
        assert_close(found[Site("z", 0)], single[Site("z", 0)], rtol=1e-4, atol=1e-5)
        for site, gap in found.gap.items():
            assert single.gap[site] == pytest.approx(gap, rel=1e-2)


def test_the_rule_is_part_of_what_is_written_down():
    method = Integrated("trapezoid", 5, path="inputs")
    assert str(method) == "integrated gradients along the inputs (trapezoid, 5 steps)"
    assert dataclasses.replace(method, steps=6).steps == 6
