"""Run where there is a CUDA device; everything else here runs on the CPU."""

import pytest
import torch
from torch.testing import assert_close

from workbench import models, probes, tasks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def _moved(examples, device):
    known = {"groups": examples.groups, "types": examples.types}
    there = {name: None if one is None else one.to(device) for name, one in known.items()}
    return probes.examples(examples.x.to(device), examples.y.to(device), **there)


@pytest.mark.parametrize("classes", [2, 3])
def test_every_fit_of_a_batch_is_that_of_the_cpu(noisy, classes):
    examples = noisy(layers=3, count=240, width=40, classes=classes)
    fits = []
    for device in ("cpu", "cuda"):
        there = _moved(examples, device)
        splits = probes.k_fold(there, 3, seed=0)
        generator = torch.Generator().manual_seed(1)
        sets = probes.shuffled_labels(there, count=2, generator=generator)
        sets = torch.cat([there.y[None], sets])
        fits.append(probes.fit_each(there, splits, l2=(1e-4, 1e-2, 1.0), label_sets=sets))
    ours, theirs = fits[1], fits[0]
    assert ours.weight.device.type == "cuda"
    assert float(ours.gradient.max()) <= 1e-6
    assert_close(ours.loss.cpu(), theirs.loss, rtol=1e-6, atol=1e-9)
    assert_close(ours.weight.cpu(), theirs.weight, rtol=1e-3, atol=1e-4)


def test_one_fit_and_its_erasure_on_the_device_are_those_of_the_cpu(noisy):
    examples = noisy(layers=1, count=200)
    x, y = examples.x[0], examples.y
    probe, there = probes.fit(x, y), probes.fit(x.cuda(), y.cuda())
    assert_close(there.weight.cpu(), probe.weight, rtol=1e-3, atol=1e-4)
    taken = probes.leace(probes.moments(x.cuda(), y.cuda()))
    gone = probes.fit(taken(x.cuda()), y.cuda())
    assert gone.gradient == 0.0 and not gone.weight.any()


@pytest.mark.parametrize("formula", ["ridge", "mass-mean", "whitened mass-mean", "lda"])
def test_closed_forms_on_the_device_are_those_of_the_cpu(noisy, formula):
    examples = noisy(layers=1)
    x, y = examples.x[0], examples.y
    here, there = (
        probes.probe_of(probes.Moments.of(x.to(one), y.to(one), classes=2), formula)
        for one in ("cpu", "cuda")
    )
    assert_close(there.weight.cpu(), here.weight, rtol=1e-5, atol=1e-6)


def test_a_study_of_a_model_on_the_device_gives_the_cpu_s_numbers():
    found = []
    for device in ("cpu", "cuda"):
        model = models.load("tiny-gqa", device=device)
        labelled = tasks.number(model, nouns=6, seed=0)
        examples = probes.features_of(model, labelled)
        found.append(
            probes.study(
                examples, task=labelled.name, folds=3, l2=(1e-2, 1.0), repeats=1, shuffles=3
            )
        )
    assert_close(found[1].accuracy, found[0].accuracy, atol=0.02, rtol=0)
    assert_close(found[1].compression, found[0].compression, rtol=1e-2, atol=1e-2)
