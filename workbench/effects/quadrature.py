"""Where along a path gradients are taken, and how much each of them counts."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Rule = Literal["left", "right", "midpoint", "trapezoid", "gauss-legendre"]


@dataclass(frozen=True)
class Quadrature:
    """A rule for the mean over a path from 0 (as it is) to 1 (replaced), named with its fineness.

    steps   equal parts of the path for "left", "right", "midpoint" and "trapezoid" (which looks
            at both ends, so once more than it has parts); points for "gauss-legendre". Doubling
            them divides the error of a smooth function by 2 for "left" and "right", and by 4
            for "midpoint" and "trapezoid"; "gauss-legendre" is exact for polynomials of degree
            2 steps - 1.
    """

    rule: Rule = "gauss-legendre"
    steps: int = 8

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"no rule {self.rule!r}; there are {', '.join(get_args(Rule))}")
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: a path needs at least one")

    def __str__(self) -> str:
        return f"{self.rule}, {self.steps} steps"

    @property
    def points(self) -> list[tuple[float, float]]:
        """(place between 0 and 1, weight) of each gradient; the weights sum to one."""
        n = self.steps
        if self.rule == "gauss-legendre":
            places, weights = np.polynomial.legendre.leggauss(n)
            return list(zip(((places + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))
        if self.rule == "trapezoid":
            ends = [0.5, *[1.0] * (n - 1), 0.5]
            return [(step / n, weight / n) for step, weight in enumerate(ends)]
        shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[self.rule]
        return [((step + shift) / n, 1 / n) for step in range(n)]
