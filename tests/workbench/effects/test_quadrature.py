import pytest
import torch

from workbench import effects

RULES = ("left", "right", "midpoint", "trapezoid", "gauss-legendre")


def mean(rule, steps, function):
    return sum(w * function(x) for x, w in effects.Quadrature(rule, steps).points)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_mean_of_a_constant_is_the_constant(rule, steps):
    assert mean(rule, steps, lambda x: 3.0) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("left", 0.375), ("right", 0.625), ("midpoint", 0.5), ("trapezoid", 0.5)],
)
def test_the_mean_of_a_line_in_four_steps_is_what_the_rule_says_by_hand(rule, expected):
    assert mean(rule, 4, lambda x: x) == pytest.approx(expected)


def test_gauss_legendre_is_exact_for_polynomials_up_to_twice_its_points_less_one():
    for degree in range(6):
        found = mean("gauss-legendre", 3, lambda x, d=degree: x**d)
        assert found == pytest.approx(1 / (degree + 1), rel=1e-12)
    assert mean("gauss-legendre", 3, lambda x: x**6) != pytest.approx(1 / 7, rel=1e-6)


def test_both_ends_are_looked_at_by_the_trapezoid_rule_only():
    ends = {rule: {x for x, _ in effects.Quadrature(rule, 4).points} & {0, 1} for rule in RULES}
    assert ends == {
        "left": {0}, "right": {1}, "midpoint": set(), "trapezoid": {0, 1}, "gauss-legendre": set(),
    }  # fmt: skip


def test_points_are_in_order_and_plain_numbers():
    for rule in RULES:
        places = [place for place, _ in effects.Quadrature(rule, 5).points]
        assert places == sorted(places) and all(type(place) is float for place in places)


def test_an_unknown_rule_and_no_steps_are_refused():
    with pytest.raises(Exception, match=r"no rule 'simpson'; there are left, right|Type-check"):
        effects.Quadrature("simpson", 3)
    with pytest.raises(ValueError, match="a path needs at least one"):
        effects.Integrated("left", 0)
    assert torch.tensor(effects.Quadrature("left", 2).points).tolist() == [[0, 0.5], [0.5, 0.5]]
