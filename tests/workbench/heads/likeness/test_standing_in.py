"""What it costs when one head stands in for another."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening
from workbench import heads, metrics, models, results, tasks


def test_a_copy_stands_in_fully_and_another_head_as_its_mean_does():
    model = models.load("planted/duplicate")
    roles = models.planted.truth(model).roles
    chosen = [*roles["induction"], roles["same output"][0]]
    task = tasks.planted(model, prompts=64, seed=1)
    found = heads.substitute(model, task, heads=chosen, metric=metrics.logit_diff)
    assert_close(found.effect[:3, :3], torch.zeros(3, 3), rtol=0, atol=1e-3)
    assert_close(found.by_mean[:3], torch.full((3,), -4.0), rtol=0, atol=0.02)
    assert_close(found.effect[:3, 3], found.by_mean[:3], rtol=0, atol=0.3)
    assert_close(found.explained[:3, :3], torch.ones(3, 3), rtol=0, atol=1e-3)
    copies = set(chosen[:3])
    pairs = found.stand_ins()
    assert {pair for pair in pairs[:6]} == {(a, b) for a in copies for b in copies if a != b}
    assert "keeps 100%" in found.sentence()


@pytest.fixture(scope="module")
def replaced(model):
    task = tasks.ioi(model, prompts=12, seed=0)
    chosen = [(0, 1), (1, 2)]
    found = heads.substitute(model, task, heads=chosen, metric=metrics.logit_diff)
    return task, found


def test_a_mean_in_a_heads_place_by_hand(model, replaced):
    task, found = replaced
    fitted_on, measured_on = task[list(range(0, 12, 2))], task[list(range(1, 12, 2))]
    z = capture(model, fitted_on.clean, [Site("z", 1)])[Site("z", 1)]
    real = fitted_on.clean.mask.bool()
    real[:, 0] = False
    clean = capture(model, measured_on.clean, [Site("z", 1)])[Site("z", 1)]
    clean[:, 1:, 2] = z[:, :, 2][real].mean(0)
    before = metrics.logit_diff(model(measured_on.clean), measured_on)
    with intervening(model, {Site("z", 1): edits.replace(clean, heads=[2])}):
        after = metrics.logit_diff(model(measured_on.clean), measured_on)
    assert found.by_mean[1].item() == pytest.approx((after - before).mean().item(), abs=1e-4)
    assert_close(found.baseline, before, rtol=1e-4, atol=1e-4)


def test_a_fit_without_shrinking_is_least_squares():
    from workbench.heads.likeness.standing_in import _fits

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator).double()
    y = x @ torch.randn(3, 3, generator=generator).double() + 2.0
    fits = _fits(torch.stack([x, y]))
    assert_close(fits(x, 1, 0), y, rtol=1e-6, atol=1e-6)
    assert_close(fits.explained(torch.stack([x, y])), torch.ones(2, 2).double())


def test_noise_is_not_fitted():
    from workbench.heads.likeness.standing_in import _fits

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 40, 16, generator=generator).double()
    fresh = torch.randn(2, 4000, 16, generator=generator).double()
    assert _fits(z).explained(fresh)[0, 1] > -0.2  # plain least squares: about -0.6


def test_substitution_says_what_it_found_and_comes_back_from_a_file(replaced, tmp_path):
    _, found = replaced
    assert "Of 2 heads of tiny-gqa on ioi" in found.sentence()
    assert len(found.table().splitlines()) == 3
    results.save(found, tmp_path / "substitution.nc")
    again = results.load(heads.Substitution, tmp_path / "substitution.nc")
    assert results.digest(again) == results.digest(found)


def test_too_little_to_fit_on_is_refused(model, task):
    with pytest.raises(ValueError, match="2 heads and 3 prompts"):
        heads.substitute(model, task[:3], heads=[(0, 0), (0, 1)], metric=metrics.logit_diff)
    with pytest.raises(ValueError, match=r"no head 5\.0"):
        heads.substitute(model, task, heads=[(0, 0), (5, 0)], metric=metrics.logit_diff)
    planted = models.load("planted/duplicate")
    few = tasks.planted(planted, prompts=4, seed=0)
    with pytest.raises(ValueError, match="a fit of 52 numbers from 52 has"):
        heads.substitute(planted, few, heads=[(0, 0), (1, 0)], metric=metrics.logit_diff)
