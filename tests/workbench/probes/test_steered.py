"""A study says whether the direction that it reads steers, beside random pushes as long."""

import pytest
import torch
from torch.testing import assert_close

from workbench import metrics, plots, probes, results

OPTIONS = {"l2": (1e-1,), "repeats": 1, "shuffles": 19, "folds": 4}


def _steered(planted, labels, **how):
    examples = probes.features(planted.model, planted.task.clean, labels)
    study = probes.study(examples, task="a planted bit", **OPTIONS)
    at = planted.task.positions["noun"]
    how = {"layers": (0, 1), "metric": metrics.logit_diff, "positions": at} | how
    return study, probes.steered(study, planted.model, planted.task, examples, **how)


def test_a_bit_that_the_logits_read_steers_as_far_as_it_was_wired(planted, tmp_path):
    study, found = _steered(planted, planted.number)
    assert found.significant() == [0, 1]
    # From -1 to 1 along a coordinate that the two logits read with 2 and -2, and the answer of
    # each prompt is its own number's: half of them gain 8, half lose it.
    assert study.steer is None and found.steer is not None
    assert_close(found.steer, torch.zeros(2), atol=0.5, rtol=0)
    kept = planted.number == 1
    _, one = _half(planted, kept)
    assert_close(one.steer, torch.full((2,), 8.0), atol=0.8, rtol=0)
    assert one.headline()["steers"] == 2
    assert "more than 39 random pushes as long in 2 of 2 layers" in one.sentence()
    assert one.baselines == []  # a file must hold that, too
    results.save(one, tmp_path / "study.nc")
    assert results.digest(results.load(probes.ProbeStudy, tmp_path / "study.nc")) == (
        results.digest(one)
    )
    assert len(plots.png(one)) > 10_000


def test_a_bit_that_nothing_reads_is_decodable_and_does_not_steer(planted):
    _, found = _steered(planted, planted.other)
    assert found.significant() == [0, 1]
    assert found.headline()["steers"] == 0
    assert "nothing shows that the model uses this direction there" in found.sentence()


def test_layers_that_were_not_steered_are_left_out(planted):
    _, found = _steered(planted, planted.other, layers=(1,))
    assert found.steer.isnan().tolist() == [True, False]
    assert found.steer_placebo.shape == (2, 39)


def test_layers_and_classes_that_cannot_be_steered_are_named(planted):
    with pytest.raises(ValueError, match=r"layers \[7\] to steer, but the study has \[0, 1\]"):
        _steered(planted, planted.other, layers=(7,))
    with pytest.raises(ValueError, match="4 classes: the direction is from one class"):
        _steered(planted, planted.other + 2 * planted.number)


def _half(planted, kept):
    examples = probes.features(planted.model, planted.task.clean, planted.number)
    study = probes.study(examples, task="a planted bit", **OPTIONS)
    task = planted.task[kept.nonzero()[:, 0]]
    return study, probes.steered(
        study, planted.model, task, examples, metric=metrics.logit_diff,
        positions=task.positions["noun"], layers=(0, 1),
    )  # fmt: skip
