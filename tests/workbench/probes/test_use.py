"""What is decodable and used is told from what is decodable and unused."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site
from workbench import effects, metrics, probes, results, statistics, tasks

SITE = Site("resid_post", 0)


def _axis(at, width=32):
    return torch.eye(width)[at]


@pytest.mark.parametrize("kind", ["norm", "spread", "rank"])
def test_a_planted_direction_that_the_logits_read_is_used(planted, kind):
    change = probes.projection(_axis(0))
    found = probes.use(
        planted.model, planted.task, change, site=SITE, metric=metrics.logit_diff,
        against=probes.Placebos(kind),
    )  # fmt: skip
    # 2 - (-2) for each prompt, as the logits were wired; zero when the coordinate is gone.
    assert_close(found.effect, -4.0, rtol=0.05, atol=0)
    assert found.p == 0.01
    assert found.is_used
    assert "the model uses it here" in found.sentence()


@pytest.mark.parametrize("kind", ["norm", "spread", "rank"])
def test_a_planted_direction_that_nothing_reads_is_decodable_and_unused(planted, kind):
    examples = probes.features(planted.model, planted.task.clean, planted.other, layers=[0])
    assert probes.least_squares_accuracy(examples.x[0], examples.y) == 1.0
    found = probes.use(
        planted.model, planted.task, probes.projection(_axis(1)), site=SITE,
        metric=metrics.logit_diff, against=probes.Placebos(kind),
    )  # fmt: skip
    assert abs(found.effect) < 1e-4
    assert found.p > 0.9
    assert not found.is_used
    assert "nothing shows that the model uses it" in found.sentence()


def test_pushing_along_it_moves_the_metric_as_far_as_it_was_wired(planted):
    found = probes.use(
        planted.model, planted.task, probes.Push(0.5 * _axis(0)), site=SITE,
        metric=metrics.logit_diff, positions=2,
    )  # fmt: skip
    wired = torch.where(planted.number == 1, 2.0, -2.0)
    assert_close(found.per_prompt, wired, rtol=1e-4, atol=1e-4)


def test_the_effect_is_that_of_an_ordinary_pass(tiny):
    task = tasks.agreement(tiny, prompts=6, seed=0)
    change = probes.projection(torch.randn(32, generator=torch.Generator().manual_seed(0)))
    found = probes.use(
        tiny, task, change, site=SITE, metric=metrics.logit_diff, corpus=task.clean,
        against=probes.Placebos(count=19),
    )  # fmt: skip
    plain = effects.measure(tiny, task, metric=metrics.logit_diff)
    edited = effects.measure(tiny, task, metric=metrics.logit_diff, edits={SITE: change.edit()})
    assert_close(found.per_prompt, edited - plain)
    assert_close(found.baseline, plain)


def test_the_loss_on_text_is_minus_the_mean_log_probability(tiny):
    task = tasks.agreement(tiny, prompts=6, seed=0)
    expected = -effects.measure(tiny, task, metric=metrics.mean_logprob)
    assert_close(probes.text_loss(tiny, task.clean), expected)
    with pytest.raises(ValueError, match="text 0 has one token"):
        probes.text_loss(tiny, Prompts.of(torch.tensor([[5]])))


def test_amnesia_tells_used_from_unused_at_every_layer(planted):
    model, task = planted.model, planted.task
    used = probes.features(model, task.clean, planted.number)
    idle = probes.features(model, task.clean, planted.other)
    found = probes.amnesic(model, task, used, metric=metrics.logit_diff)
    assert found.used() == [0, 1]
    assert found.decodable() == [0, 1]
    assert_close(found.effect, torch.full((2,), -4.0), rtol=0.05, atol=0)
    # Each prompt's class mean put back: what the label alone carries is all there was.
    assert found.given_back.abs().max() < 0.5
    assert (found.accuracy_after < 0.7).all()
    unused = probes.amnesic(model, task, idle, metric=metrics.logit_diff)
    assert unused.decodable() == [0, 1]
    assert unused.used() == []
    assert "nothing shows that it is used" in unused.sentence()


def test_results_are_kept_and_read_back(planted, tmp_path):
    examples = probes.features(planted.model, planted.task.clean, planted.number)
    found = probes.amnesic(
        planted.model, planted.task, examples, metric=metrics.logit_diff,
        against=probes.Placebos(count=19),
    )  # fmt: skip
    path = tmp_path / "amnesia.nc"
    results.save(found, path)
    assert results.digest(results.load(probes.Amnesia, path)) == results.digest(found)


def test_examples_of_another_place_are_refused(planted):
    model, task = planted.model, planted.task
    elsewhere = probes.features(model, task.clean, planted.number, positions=0)
    with pytest.raises(ValueError, match="are not what flows at resid_post 0"):
        probes.amnesic(model, task, elsewhere, metric=metrics.logit_diff)
    fewer = probes.features(model, task.clean[:8], planted.number[:8])
    with pytest.raises(ValueError, match="8 examples for 40 prompts"):
        probes.amnesic(model, task, fewer, metric=metrics.logit_diff)


def test_a_placebo_test_counts_those_at_least_as_far_from_zero():
    seen, placebos = torch.tensor([3.0, -1.0]), torch.tensor([[1.0, -2.0, 4.0], [0.0, 1.0, 0.5]])
    test = statistics.placebo_test(seen, placebos)
    assert test.p.tolist() == [0.5, 0.5]
    assert (test.corrected >= test.p).all()
