"""Erasing: what the theorem of LEACE promises, and what a linear guard does not."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, intervening
from workbench import probes
from workbench.probes import erasure


@pytest.fixture(scope="module")
def three():
    """Three separable classes of unequal size, in correlated activations, in float64."""
    generator = torch.Generator().manual_seed(0)
    y = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), 2000, True, generator=generator)
    mixing = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    centres = 8 * torch.randn(3, 20, generator=generator, dtype=torch.float64)
    noise = torch.randn(2000, 20, generator=generator, dtype=torch.float64)
    return noise @ mixing + centres[y] + 3, y


def _cross_covariance(x, y):
    hot = torch.nn.functional.one_hot(y).double()
    return (x - x.mean(0)).T @ (hot - hot.mean(0)) / len(x)


def test_after_leace_the_least_squares_probe_is_right_as_often_as_the_commonest_class(three):
    x, y = three
    majority = float(torch.bincount(y).max()) / len(y)
    assert probes.least_squares_accuracy(x, y) > 0.95
    erased = probes.leace(probes.moments(x, y))(x)
    assert probes.least_squares_accuracy(erased, y) == majority


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_after_leace_activations_and_labels_do_not_vary_together(three, shrinkage):
    x, y = three
    taken = probes.leace(probes.moments(x, y), shrinkage=shrinkage)
    assert _cross_covariance(x, y).abs().max() > 1
    assert _cross_covariance(taken(x), y).abs().max() <= 1e-10


@pytest.mark.parametrize("method", ["leace", "mean", "inlp"])
def test_erasing_twice_is_erasing_once_and_the_mean_stays(three, method):
    x, y = three
    taken = probes.eraser(x, y, method=method)
    once = taken(x)
    assert_close(taken(once), once, rtol=0, atol=1e-9)
    assert_close(once.mean(0), x.mean(0), rtol=0, atol=1e-9)


def test_leace_and_mean_projection_take_one_direction_less_than_there_are_classes(three):
    x, y = three
    assert probes.leace(probes.moments(x, y)).rank == 2
    assert probes.mean_projection(probes.moments(x, y)).rank == 2


def test_no_other_guard_changes_less_than_leace(three):
    x, y = three
    seen = probes.moments(x, y)
    least = (probes.leace(seen)(x) - x).square().sum()
    for other in (probes.mean_projection(seen), probes.leace(seen, shrinkage=0.2)):
        assert _cross_covariance(other(x), y).abs().max() <= 1e-9
        assert (other(x) - x).square().sum() > 1.001 * least


def test_leace_is_that_of_the_library_concept_erasure(three):
    library = pytest.importorskip(
        "concept_erasure", reason="concept-erasure, whose LEACE this is compared with, is missing"
    )
    x, y = three
    options = {"constrain_cov_trace": False, "shrinkage": False, "svd_tol": 1e-10}
    hot = torch.nn.functional.one_hot(y).double()
    theirs = library.LeaceFitter.fit(x, hot, **options).eraser
    ours = probes.leace(probes.moments(x, y))
    assert_close(ours(x), theirs(x), rtol=0, atol=1e-8)
    # Of others, too, and of numbers instead of classes.
    others = torch.randn(50, 20, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    assert_close(ours(others), theirs(others), rtol=0, atol=1e-8)
    number = (x[:, 0] + x[:, 1].square()) / 10
    theirs = library.LeaceFitter.fit(x, number[:, None], **options).eraser
    assert_close(probes.leace(probes.moments(x, number))(x), theirs(x), rtol=0, atol=1e-8)


def test_for_activations_that_vary_alike_leace_is_the_projection_of_the_means():
    generator = torch.Generator().manual_seed(1)
    raw = torch.randn(600, 8, generator=generator, dtype=torch.float64)
    y = (raw[:, 0] > 0.3).long()
    centred = raw - raw.mean(0)
    values, basis = torch.linalg.eigh(centred.T @ centred / len(raw))
    white = centred @ basis / values.sqrt()
    seen = probes.moments(white, y)
    assert_close(probes.leace(seen)(white), probes.mean_projection(seen)(white))


def test_moments_of_batches_add_up_to_those_of_all(three):
    x, y = three
    whole = probes.moments(x, y)
    parts = [probes.moments(x[i : i + 300], y[i : i + 300], classes=3) for i in range(0, 2000, 300)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert_close(total.scatter, whole.scatter)
    assert_close(total.cross, whole.cross)
    assert_close(probes.leace(total)(x), probes.leace(whole)(x))


def test_what_is_no_line_can_still_be_read_after_leace():
    generator = torch.Generator().manual_seed(2)
    bits = torch.randint(0, 2, (2000, 2), generator=generator)
    x = 4.0 * bits.double() + 0.3 * torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    x = torch.cat([x, torch.randn(2000, 3, generator=generator, dtype=torch.float64)], dim=1)
    y = bits[:, 0] ^ bits[:, 1]
    erased = probes.leace(probes.moments(x, y))(x)
    majority = float(torch.bincount(y).max()) / len(y)
    assert probes.least_squares_accuracy(erased, y) == majority
    product = (erased[:, :1] - erased[:, :1].mean()) * (erased[:, 1:2] - erased[:, 1:2].mean())
    assert probes.least_squares_accuracy(torch.cat([erased, product], dim=1), y) > 0.99


def test_inlp_ends_when_no_probe_is_better_than_the_commonest_class():
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(400) % 2
    x = torch.randn(400, 6, generator=generator, dtype=torch.float64)
    x[:, 0] += 6 * y
    x[:, 1] += 6 * y
    taken = probes.inlp(x, y, rounds=6)
    assert 1 <= taken.rank <= 6
    assert_close(taken.read @ taken.read.T, torch.eye(taken.rank, dtype=torch.float64))
    assert probes.least_squares_accuracy(x, y) > 0.99
    assert probes.least_squares_accuracy(taken(x), y) < 0.6


def test_a_planted_direction_is_what_is_taken():
    generator = torch.Generator().manual_seed(4)
    y = torch.arange(3000) % 2
    planted = torch.nn.functional.normalize(torch.randn(30, generator=generator), dim=0)
    x = torch.randn(3000, 30, generator=generator) + 6 * y[:, None] * planted
    for method in ("leace", "mean"):
        taken = probes.eraser(x[:2000], y[:2000], method=method)
        direction = torch.nn.functional.normalize(taken.write[0].float(), dim=0)
        assert abs(float(direction @ planted)) > 0.99
        weight, bias = erasure.ridge_probe(taken(x[:2000]), y[:2000], ridge=1e-3)
        found = (taken(x[2000:]).double() @ weight.T + bias).argmax(dim=1)
        assert abs(float((found == y[2000:]).double().mean()) - 0.5) < 0.05


def test_a_placebo_moves_every_activation_exactly_as_far(three):
    x, y = three
    taken = probes.leace(probes.moments(x, y))
    for kind in ("norm", "spread"):
        generator = torch.Generator().manual_seed(5)
        other = probes.Placebos(kind).of(taken, x, generator=generator)
        assert_close(other.removed(x).norm(dim=1), taken.removed(x).norm(dim=1))
        assert not torch.allclose(other(x), taken(x))
    other = probes.Placebos("rank").of(taken, x, generator=torch.Generator().manual_seed(5))
    assert other.rank == taken.rank


def test_as_an_edit_it_does_what_it_does_to_activations(tiny, prompts):
    site = Site("resid_post", 0)
    seen = capture(tiny, prompts, [site])[site]
    x = seen[prompts.mask.bool()]
    y = torch.arange(len(x)) % 2
    taken = probes.eraser(x, y, shrinkage=0.2)
    with intervening(tiny, {site: taken.edit()}):
        edited = capture(tiny, prompts, [site])[site]
    assert_close(edited[prompts.mask.bool()], taken(x), rtol=1e-4, atol=1e-5)


def test_bad_input_is_named(unchecked_types):
    x, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 3)
    with pytest.raises(ValueError, match=r"5 labels for 6 examples.* row 5"):
        probes.moments(x, y[:5])
    with pytest.raises(ValueError, match="two classes"):
        probes.moments(x, torch.zeros(6).long())
    broken = x.clone()
    broken[4, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN or Inf in example 4"):
        probes.moments(broken, y)
    with pytest.raises(ValueError, match="shrinkage 2"):
        probes.leace(probes.moments(x, y), shrinkage=2.0)
    with pytest.raises(ValueError, match="zero"):
        probes.projection(torch.zeros(3))
    with pytest.raises(ValueError, match="at least 19"):
        probes.Placebos(count=5)


def test_the_helper_of_the_tests_is_the_moments_own(three):
    x, y = three
    seen = erasure.moments(x, y)
    assert_close(seen.cross / seen.count, _cross_covariance(x, y))


def test_the_ridge_probe_is_the_same_from_either_system():
    generator = torch.Generator().manual_seed(6)
    x, y = torch.randn(10, 16, generator=generator), torch.arange(10) % 2
    small, _ = erasure.ridge_probe(x, y, ridge=0.1)
    away = (x - x.mean(0)).double()
    hot = torch.nn.functional.one_hot(y).double() - 0.5
    penalty = 0.1 * away.square().sum() / 16
    large = torch.linalg.solve(away.T @ away + penalty * torch.eye(16), away.T @ hot).T
    assert_close(small, large)
