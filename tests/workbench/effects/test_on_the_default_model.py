import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, sites
from workbench import effects, metrics, tasks

pytestmark = pytest.mark.slow
DIFF = metrics.logit_diff


@pytest.fixture(scope="module")
def task(default_model):
    return tasks.ioi(default_model, prompts=4, seed=0)


def moved(model, task, site, edit, found):
    return effects.measure(model, task, metric=DIFF, edits={site: edit}) - found.baseline


def test_at_a_hundredth_of_the_change_estimates_are_effects_within_two_percent(default_model, task):
    heads = sites.all(default_model, "z")
    found = effects.attribute(default_model, task, heads, metric=DIFF, summed=["pos"])
    for node in found.strongest(5):
        site, head = node.site, node.at["head"]
        here = capture(default_model, task.clean, [site])[site]
        there = capture(default_model, task.corrupt, [site])[site]
        small = edits.replace(here + 0.01 * (there - here), heads=[head])
        exact = moved(default_model, task, site, small, found).mean() / 0.01
        assert float(exact) == pytest.approx(node.effect, rel=0.02)


def test_the_heads_it_finds_are_those_that_matter(default_model, task):
    """Predicted, then made: the strongest heads' estimates have the sign of their effects."""
    heads = sites.all(default_model, "z")
    found = effects.attribute(default_model, task, heads, metric=DIFF, summed=["pos"])
    there = capture(default_model, task.corrupt, heads)
    estimates, exact = [], []
    for node in found.strongest(8):
        edit = edits.replace(there[node.site], heads=[node.at["head"]])
        estimates.append(node.effect)
        exact.append(float(moved(default_model, task, node.site, edit, found).mean()))
    agreement = torch.corrcoef(torch.tensor([estimates, exact]))[0, 1]
    assert float(agreement) > 0.8  # 0.88 here: estimates are no effects


def test_a_sites_integrated_gradient_is_complete(default_model, task):
    site = Site("z", 15)
    found = effects.attribute(
        default_model, task, [site], metric=DIFF, method=effects.Integrated(steps=4)
    )
    source = capture(default_model, task.corrupt, [site])[site]
    exact = moved(default_model, task, site, edits.replace(source), found)
    assert_close(found[site].sum((0, 1)), exact, rtol=1e-3, atol=1e-3)
    assert found.gap[site] < 1e-3
