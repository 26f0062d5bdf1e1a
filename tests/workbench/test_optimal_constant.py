import pytest
import torch

from hooks import Site, edits, intervening, last_logits
from workbench import effects, metrics, tasks


@pytest.fixture
def task(small):
    return tasks.ioi(small, prompts=4, seed=0, corruption="third")


def measured(model, task, edit):
    with intervening(model, edit):
        return metrics.answer_logprob(last_logits(model, task.clean), task).mean()


@pytest.mark.parametrize("site", [Site("z", 0), Site("z", 1), Site("mlp_out", 0)])
def test_the_optimal_constant_does_no_more_harm_than_zero_mean_or_resampling(small, task, site):
    heads = [1] if site.stream == "z" else None
    found = effects.optimal_constant(
        small, task, site, metric=metrics.answer_logprob, heads=heads, steps=40
    )
    where = {} if heads is None else {"heads": heads}
    for kind in ("zero", "mean", "resample"):
        value = effects.values(small, task, [site], source=kind)[site]
        other = measured(small, task, {site: edits.replace(value.contiguous(), **where)})
        assert found.metric >= float(other) - 1e-5
    assert found.metric > max(found.zero, found.mean)  # and the fit was of use


def test_what_is_reported_is_what_the_constant_gives(small, task):
    site = Site("z", 1)
    found = effects.optimal_constant(
        small, task, site, metric=metrics.answer_logprob, heads=[2], steps=10
    )
    source = effects.Source("constant", constants={site: found.value})
    value = effects.values(small, task, [site], source=source)[site]
    again = measured(small, task, {site: edits.replace(value.contiguous(), heads=[2])})
    torch.testing.assert_close(float(again), found.metric, rtol=0, atol=1e-5)


def test_a_metric_without_a_gradient_is_refused(small, task):
    with pytest.raises((ValueError, RuntimeError), match="gradient"):
        effects.optimal_constant(small, task, Site("z", 0), metric=metrics.accuracy)
