"""Logistic regressions by the hundred, as rows of one iteration.

All problems on one layer's activations (folds, regularisations, label sets) advance together:
conjugate gradients on the objective (Polak & Ribière) with a Newton step along each direction
(Minka 2003), preconditioned by the Hessian of the zero probe, in the eigenbasis of the Gram matrix
where there are many regularisations. The preconditioner sees all examples; it changes the path,
never the optimum. A problem that has converged is dropped from the iteration.

The objective of a problem, with activations standardised by its training part:

    mean over its training part of -log p(y | x)  +  l2 / 2 * |weight|^2        (bias unpenalised)

which is scikit-learn's with C = 1 / (l2 * training examples).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from workbench.probes.descent import Objectives, Preconditioner, Space, lowest, pulled, pushed

MOST_NUMBERS = 4_000_000
"""How many scores are held at once."""

SMALLEST = 1e-6
"""Gradients of the zero probe below this count as this large, but where the zero probe is taken."""

ROUGH = 1e-5
"""The relative gradient down to which float32 is used."""


@dataclass(frozen=True, eq=False)
class Problems:
    """Many logistic regressions on one set of activations: which part, which labels, which l2.

    part, labels   for each problem, its row of `parts` and of `label_sets`
    units          activations are standardised by each problem's own part, or by all examples:
                   where labels alone are to be coded, the activations are known to both sides
    """

    parts: Bool[Tensor, "part example"]
    label_sets: Int[Tensor, "labels example"]
    part: Int[Tensor, " problem"]
    labels: Int[Tensor, " problem"]
    l2: Float[Tensor, " problem"]
    classes: int
    units: Literal["part", "all"] = "part"

    def __len__(self) -> int:
        return len(self.part)

    def rows(self, chosen: Int[Tensor, " chosen"]) -> "Problems":
        """Some of the problems."""
        return Problems(
            self.parts,
            self.label_sets,
            self.part[chosen],
            self.labels[chosen],
            self.l2[chosen],
            self.classes,
            self.units,
        )


@dataclass(frozen=True, eq=False)
class Solution:
    """The optimum of every problem, in the activations' own coordinates.

    gradient     norm where it stopped, relative to that of the zero probe; 0 for a problem whose
                 zero probe has a gradient that rounding of the activations alone can make: nothing
                 is left to fit, and the zero probe is what it gets
    """

    weight: Float[Tensor, "problem class d_model"]
    bias: Float[Tensor, "problem class"]
    loss: Float[Tensor, " problem"]
    gradient: Float[Tensor, " problem"]
    iterations: int


def solve(
    x: Float[Tensor, "example d_model"],
    problems: Problems,
    *,
    tolerance: float = 1e-6,
    most: int = 3000,
) -> Solution:
    """The optimum of every problem: float32 most of the way, float64 to the end.

    Raises where a problem has not come within `tolerance` after `most` iterations of a precision.
    """
    if bool((problems.l2 <= 0).any()):
        raise ValueError("l2 is positive: without it separable classes have no optimum")
    if not 0 < tolerance < 1 or most < 1:
        raise ValueError(f"tolerance {tolerance} is not in (0, 1), or most {most} is below 1")
    space, scale, back = _space(x, problems.parts)
    scale = torch.ones_like(scale) if problems.units == "all" else scale
    turn = Preconditioner.of(space, problems.l2, 1 / (2 * problems.classes))
    turn = turn.with_parts(space, problems.parts, scale)
    size = max(1, MOST_NUMBERS // (len(x) * _rows(problems)))
    weight, bias, loss, gradient, steps = [], [], [], [], 0
    for rows in torch.arange(len(problems), device=x.device).split(size):
        now = problems.rows(rows)
        found, taken = _optimum(
            space, _objectives(now, scale), turn,
            rounding=back.rounding, tolerance=tolerance, most=most,
        )  # fmt: skip
        steps = max(steps, taken)
        _check(found, now, tolerance)
        raw = found.weight[..., :-1] / back.deviation
        weight.append(raw.to(x.dtype))
        bias.append((found.weight[..., -1] - raw @ back.mean).to(x.dtype))
        loss.append(found.loss)
        gradient.append(found.gradient)
    return Solution(torch.cat(weight), torch.cat(bias), torch.cat(loss), torch.cat(gradient), steps)


class _Back(NamedTuple):
    """From standardised coordinates to the activations' own.

    rounding   of the activations, in standardised coordinates
    """

    mean: Float[Tensor, " d_model"]
    deviation: Float[Tensor, " d_model"]
    rounding: Float[Tensor, " column"]


class _Found(NamedTuple):
    weight: Float[Tensor, "row class column"]
    loss: Float[Tensor, " row"]
    gradient: Float[Tensor, " row"]


def _rows(problems: Problems) -> int:
    return 1 if problems.classes == 2 else problems.classes


def _space(
    x: Float[Tensor, "example d_model"], parts: Bool[Tensor, "part example"]
) -> tuple[Space, Float[Tensor, "part column"], _Back]:
    """One layer nearly standardised, the parts' own standard deviations there, and the way back."""
    unit, x = torch.finfo(x.dtype).eps, x.double()
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    varies = deviation > 8 * unit * mean.abs()  # what only rounding moves is constant
    deviation = torch.where(varies, deviation, 1.0)
    moved = torch.where(varies, (x - mean) / deviation, 0.0)
    share = parts.double() / parts.sum(dim=1, keepdim=True)
    scale = (share @ moved.square() - (share @ moved).square()).clamp(min=0).sqrt()
    scale = torch.where(scale > 1e-6, scale, 1.0)  # what is constant in its part
    full = torch.cat([moved, torch.ones_like(moved[:, :1])], dim=1)
    scale = torch.cat([scale, torch.ones_like(scale[:, :1])], dim=1)
    lost = 2 * unit * (1 + (mean / deviation).square()).sqrt()
    back = _Back(mean, deviation, torch.cat([lost, lost.new_full((1,), 1e-12)]))
    return Space(full, full.T.contiguous()), scale, back


def _objectives(problems: Problems, scale: Float[Tensor, "part column"]) -> Objectives:
    scale = scale[problems.part][:, None]
    penalty = problems.l2.double()[:, None, None] * scale.square()
    penalty[..., -1] = 0
    inside = problems.parts[problems.part].double()
    share = (inside / inside.sum(dim=1, keepdim=True))[:, None]
    labels = problems.label_sets[problems.labels]
    if problems.classes == 2:
        target = labels[:, None].double()
    else:
        target = one_hot(labels, problems.classes).double().movedim(-1, 1).contiguous()
    return Objectives(share, target, penalty, scale, problems.l2.double(), problems.part)


def _optimum(
    space: Space,
    exact: Objectives,
    turn: Preconditioner,
    *,
    rounding: Float[Tensor, " column"],
    tolerance: float,
    most: int,
) -> tuple[_Found, int]:
    shape = (*exact.target.shape[:2], space.x.shape[1])
    weight = space.x.new_zeros(shape)
    residual = exact.residual(pushed(space, weight))
    gradient = pulled(space, residual)
    # Labels that nothing speaks for: what is left of the gradient is rounding of the activations,
    # and following it were to fit that.
    nothing = (gradient.abs() <= rounding * residual.abs().sum(dim=2, keepdim=True)).all(-1)
    nothing = nothing.all(dim=1)
    zero = exact.size(gradient).clamp(min=SMALLEST)
    goal = torch.where(nothing, torch.inf, zero * max(tolerance, ROUGH)).clamp(min=SMALLEST)
    short = min(most, 300)  # float32 may not get there: float64 goes on from where it is
    rough, near = exact.to(torch.float32), space.to(torch.float32)
    start, one = lowest(near, rough, turn, weight.float(), goal=goal.float(), most=short)
    goal = torch.where(nothing, torch.inf, zero * tolerance)
    weight, two = lowest(space, exact, turn, start.double(), goal=goal, most=most)
    scores = pushed(space, weight)
    gradient = pulled(space, exact.residual(scores)) + exact.penalty * weight
    relative = torch.where(nothing, 0.0, exact.size(gradient) / zero)
    return _Found(weight, exact.loss(weight, scores), relative), one + two


def _check(found: _Found, problems: Problems, tolerance: float) -> None:
    worst = int(found.gradient.argmax())
    if not bool(found.gradient[worst] <= tolerance * (1 + 1e-6)):
        raise RuntimeError(
            f"a logistic fit stopped at a relative gradient of {float(found.gradient[worst]):.1e}, "
            f"asked for {tolerance:.1e} (l2 {float(problems.l2[worst]):.1e}): raise l2, tolerance "
            "or most"
        )
