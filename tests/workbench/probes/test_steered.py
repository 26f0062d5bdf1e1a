"""A study says whether the direction that it reads steers, beside random pushes as long."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, edits
from workbench import effects, metrics, models, plots, probes, results, tasks
from workbench.statistics import derive

OPTIONS = {"l2": (1e-1,), "repeats": 1, "shuffles": 19, "folds": 4}
PUSHED, LEARNED = torch.arange(20), torch.arange(20, 40)


def _steered(planted, labels, *, rows=PUSHED, stream="resid_post", **how):
    """Learned from half of the prompts, pushed in some of the others."""
    examples = probes.features(planted.model, planted.task.clean, labels, stream=stream)
    study = _study(examples, tuple(labels.tolist()))
    task = planted.task[rows]
    learned = how.pop("learned", examples[LEARNED])
    at = task.positions["noun"]
    how = {"layers": (0, 1), "metric": metrics.logit_diff, "positions": at} | how
    return study, probes.steered(study, planted.model, task, learned, **how)


_STUDIES: dict[tuple[object, ...], probes.ProbeStudy] = {}


def _study(examples, labels):
    """Each study once: they are of one model."""
    key = (examples.stream, *labels)
    if key not in _STUDIES:
        _STUDIES[key] = probes.study(examples, task="a planted bit", **OPTIONS)
    return _STUDIES[key]


def test_a_bit_that_the_logits_read_steers_as_far_as_it_was_wired(planted, tmp_path):
    study, found = _steered(planted, planted.number)
    assert found.significant() == [0, 1]
    # From -1 to 1 along a coordinate that the two logits read with 2 and -2, and the answer of
    # each prompt is its own number's: half of them gain 8, half lose it.
    assert study.steer is None and found.steer is not None
    assert_close(found.steer, torch.zeros(2), atol=0.5, rtol=0)
    kept = (planted.number[PUSHED] == 1).nonzero()[:, 0]
    _, one = _steered(planted, planted.number, rows=kept)
    assert_close(one.steer, torch.full((2,), 8.0), atol=1.5, rtol=0)
    assert one.headline()["steers"] == 2
    assert "more than 39 random pushes as long in 2 of 2 layers" in one.sentence()
    assert one.baselines == []  # a file must hold that, too
    results.save(one, tmp_path / "study.nc")
    assert results.digest(results.load(probes.ProbeStudy, tmp_path / "study.nc")) == (
        results.digest(one)
    )
    assert len(plots.png(one)) > 10_000


def test_the_random_pushes_are_exactly_as_long_as_the_push(planted):
    kept = (planted.number[PUSHED] == 1).nonzero()[:, 0]
    _, found = _steered(planted, planted.number, rows=kept, layers=(1,))
    x = probes.features(planted.model, planted.task.clean, planted.number, layers=[1]).x[0]
    x, y = x[LEARNED], planted.number[LEARNED]
    length = (x[y == 1].mean(0) - x[y == 0].mean(0)).norm()
    # Without norms the logits are linear: what a push does is its product with what they read.
    read = planted.read[1] - planted.read[2]
    drawn = torch.randn(39, 32, generator=derive(0, "steered"), dtype=torch.float64)
    drawn = drawn / drawn.norm(dim=1, keepdim=True) * length
    assert_close(found.steer_placebo[1], (drawn.float() @ read), rtol=1e-3, atol=1e-3)


def test_a_bit_that_nothing_reads_is_decodable_and_does_not_steer(planted):
    _, found = _steered(planted, planted.other)
    assert found.significant() == [0, 1]
    assert found.headline()["steers"] == 0
    assert "nothing shows that the model uses this direction there" in found.sentence()


@pytest.mark.parametrize("stream", ["mlp_out", "resid_mid"])
def test_the_push_is_in_the_stream_that_the_examples_are_of(tiny, stream):
    tokens = torch.randint(5, 200, (40, 4), generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 2
    examples = probes.features(tiny, Prompts.of(tokens), y, stream=stream)
    study = probes.study(examples, task="parity", **OPTIONS)
    task = tasks.agreement(tiny, prompts=4, seed=0)
    found = probes.steered(
        study, tiny, task, examples, metric=metrics.logit_diff, positions=task.clean.last,
        layers=(0,),
    )  # fmt: skip
    way = examples.x[0, y == 1].mean(0) - examples.x[0, y == 0].mean(0)
    push = {Site(stream, 0): edits.add(way, positions=task.clean.last)}
    plain, pushed = (
        effects.measure(tiny, task, metric=metrics.logit_diff, edits=one) for one in ({}, push)
    )
    assert_close(found.steer[0], (pushed - plain).mean(), rtol=1e-3, atol=1e-5)


def test_layers_that_were_not_steered_are_left_out(planted):
    _, found = _steered(planted, planted.other, layers=(1,))
    assert found.steer.isnan().tolist() == [True, False]
    assert found.steer_placebo.shape == (2, 39)


def test_layers_and_classes_that_cannot_be_steered_are_named(planted):
    with pytest.raises(ValueError, match=r"layers \[7\] to steer, but the study has \[0, 1\]"):
        _steered(planted, planted.other, layers=(7,))
    with pytest.raises(ValueError, match="4 classes: the direction is from one class"):
        _steered(planted, planted.other + 2 * planted.number)


def test_prompts_that_the_direction_was_learned_from_are_refused_by_their_row(planted):
    with pytest.raises(ValueError, match="prompt 2 of planted number is example 17"):
        _steered(planted, planted.number, rows=torch.tensor([4, 5, 37, 6]))


def test_examples_of_another_stream_or_model_or_of_none_are_refused(planted):
    clean, y = planted.task.clean, planted.number
    before = probes.features(planted.model, clean, y, stream="resid_pre")[LEARNED]
    with pytest.raises(ValueError, match="examples of resid_pre to steer by, a study of resid_p"):
        _steered(planted, y, learned=before)
    with pytest.raises(ValueError, match="examples of no known stream to steer by"):
        _steered(planted, y, learned=replace(before, stream=""))
    other = replace(before, stream="resid_post", model="another", model_digest="0")
    with pytest.raises(ValueError, match="examples of another, a study of"):
        _steered(planted, y, learned=other)
    with pytest.raises(ValueError, match="z is batch x pos x head x d_head: a push is a vector"):
        _steered(planted, y, stream="z")
    study, _ = _steered(planted, y)
    tiny = models.load("tiny")
    with pytest.raises(ValueError, match=r"the examples are of .*, to steer tiny"):
        probes.steered(
            study, tiny, planted.task, probes.features(planted.model, clean, y),
            metric=metrics.logit_diff, positions=planted.task.positions["noun"], layers=(0,),
        )  # fmt: skip
