"""What batches, sources, sums and directions change, and what they do not."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site
from workbench import effects, metrics
from workbench.models import twins

ARCHITECTURES = ("GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3", "BERT")
DIFF = metrics.logit_diff


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_has_no_effect_and_batches_make_no_difference(architecture, padded, everywhere):
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


def test_ones_own_tensors_replace_like_the_other_run_whatever_the_batches(padded, other_run):
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
