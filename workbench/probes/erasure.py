"""Taking a property out of activations, so that no linear probe finds it.

LEACE (Belrose et al. 2023), iterative nullspace projection (Ravfogel et al. 2020), and projecting
the differences of class means out. Each leaves a frozen `Eraser`. A linear guard is no more than
that: what is laid out otherwise, such as the exclusive or of two directions, stays readable.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor
from torch.nn.functional import one_hot

from hooks import Edit, Positions, edits
from workbench.probes.probe import check_classes, check_rows, class_count

Erasure = Literal["leace", "inlp", "mean"]

_NOTHING = 1e-10
"""Correlations up to this are rounding, not a direction."""


@dataclass(frozen=True, eq=False)
class Eraser:
    """x - (x - mean) @ read.T @ write: what `read` reads is taken away along `write`."""

    read: Float[Tensor, "direction d_model"]
    write: Float[Tensor, "direction d_model"]
    mean: Float[Tensor, " d_model"]
    kind: str

    def __call__(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The activations without what is erased."""
        return x - self.removed(x)

    def removed(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """What is taken away."""
        read, write, mean = (one.to(x) for one in (self.read, self.write, self.mean))
        return (x - mean) @ read.T @ write

    def edit(self, *, positions: Positions | None = None) -> Edit:
        """The same as an edit of a residual stream."""
        return edits.erase(self.read, self.write, mean=self.mean, positions=positions)

    @property
    def rank(self) -> int:
        """How many directions are erased."""
        return len(self.read)

    def along(self, rows: Float[Tensor, "direction d_model"]) -> "Eraser":
        """A placebo: takes away as much of each activation, but along the span of `rows`."""
        if rows.shape != self.write.shape:
            raise ValueError(
                f"{tuple(rows.shape)} for an eraser of {tuple(self.write.shape)}: as many rows"
            )
        left, size, _ = torch.linalg.svd(self.write.double(), full_matrices=False)
        basis = _orthonormal(rows)
        if len(basis) < len(rows):
            raise ValueError("the rows are linearly dependent: draw others")
        write = (left * size @ basis).to(self.write.dtype)
        return replace(self, write=write, kind=f"placebo of {self.kind}")


@dataclass(frozen=True, eq=False)
class CrossMoments:
    """Count, means and covariances of activations and labels: all that an erasure has to see.

    Those of two batches are added by `+`, and are then those of both together.
    """

    count: int
    mean: Float64[Tensor, " d_model"]
    label_mean: Float64[Tensor, " label"]
    scatter: Float64[Tensor, "d_model d_model"]
    cross: Float64[Tensor, "d_model label"]

    def __add__(self, other: "CrossMoments") -> "CrossMoments":
        count = self.count + other.count
        step, label_step = other.mean - self.mean, other.label_mean - self.label_mean
        share, weight = other.count / count, self.count * other.count / count
        return CrossMoments(
            count,
            self.mean + share * step,
            self.label_mean + share * label_step,
            self.scatter + other.scatter + weight * torch.outer(step, step),
            self.cross + other.cross + weight * torch.outer(step, label_step),
        )


def moments(
    x: Float[Tensor, "example d_model"],
    y: Int[Tensor, " example"] | Float[Tensor, "example label"] | Float[Tensor, " example"],
    *,
    classes: int | None = None,
) -> CrossMoments:
    """Of one batch, in float64. Classes are counted, or given where a batch may lack some."""
    check_rows(x, y)
    if not len(x):
        raise ValueError("there is no example: moments are of one or more")
    if y.is_floating_point():
        z = y[:, None] if y.ndim == 1 else y
    else:
        classes = classes or class_count(y.long())
        check_classes(y, classes)
        z = one_hot(y.long(), classes)
    wide, z = x.double(), z.double()
    mean, label_mean = wide.mean(dim=0), z.mean(dim=0)
    away = wide - mean
    return CrossMoments(len(x), mean, label_mean, away.T @ away, away.T @ (z - label_mean))


def leace(seen: CrossMoments, *, shrinkage: float = 0.0) -> Eraser:
    """The least change after which no linear probe finds the labels (Belrose et al. 2023).

    Afterwards the covariance of activations and labels is zero, for any `shrinkage` of the
    activations' own covariance towards a ball. Without it the change is the smallest there is;
    with fewer examples than dimensions take some, as every label is there to be read by chance.
    """
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage {shrinkage} is not between 0 and 1")
    covariance = seen.scatter / seen.count
    width = len(covariance)
    ball = covariance.diagonal().mean() * torch.eye(width).to(covariance)
    values, basis = torch.linalg.eigh((1 - shrinkage) * covariance + shrinkage * ball)
    kept = values > values.max() * width * torch.finfo(values.dtype).eps
    values, basis = values[kept], basis[:, kept]
    whitened = (basis / values.sqrt()).T @ (seen.cross / seen.count)
    turned, size, _ = torch.linalg.svd(whitened, full_matrices=False)
    turned = turned[:, size > _NOTHING]
    read = (basis / values.sqrt() @ turned).T
    write = (basis * values.sqrt() @ turned).T
    return Eraser(read, write, seen.mean, _named("LEACE", shrinkage))


def mean_projection(seen: CrossMoments) -> Eraser:
    """Projects the differences of the class means out (Haghighatkhah et al. 2022).

    LEACE as if all directions varied alike.
    """
    rows = _orthonormal(seen.cross.T / seen.count)
    return Eraser(rows, rows, seen.mean, "mean projection")


def inlp(
    x: Float[Tensor, "example d_model"],
    y: Int[Tensor, " example"],
    *,
    rounds: int = 16,
    ridge: float = 1e-3,
) -> Eraser:
    """Iterative nullspace projection (Ravfogel et al. 2020): fit, project out, until none is left.

    The probes are of least squares, with a penalty of `ridge` times the mean variance. Ends when
    one is right no more often than the commonest class, or after `rounds`. Unlike the paper's,
    the projection is around the mean, which stays.
    """
    _check(x, y)
    if rounds < 1 or ridge <= 0:
        raise ValueError(f"{rounds} rounds with a ridge of {ridge:g}: both must be positive")
    classes, mean = class_count(y), x.double().mean(dim=0)
    most = float(one_hot(y, classes).sum(dim=0).max()) / len(y)
    basis = x.new_zeros((0, x.shape[1]), dtype=torch.float64)
    for _ in range(rounds):
        left = x.double() - mean
        left = left - left @ basis.T @ basis
        weight, bias = ridge_probe(left, y, ridge=ridge)
        if float(((left @ weight.T + bias).argmax(dim=1) == y).double().mean()) <= most:
            break
        basis = torch.cat([basis, _orthonormal(weight, basis)])
    return Eraser(basis, basis, mean, f"INLP of rank {len(basis)}")


def eraser(
    x: Float[Tensor, "example d_model"],
    y: Int[Tensor, " example"],
    *,
    method: Erasure = "leace",
    shrinkage: float = 0.0,
) -> Eraser:
    """What takes the labels `y` out of `x`, by one of the methods of this file."""
    if method == "leace":
        return leace(moments(x, y), shrinkage=shrinkage)
    if method == "mean":
        return mean_projection(moments(x, y))
    if method == "inlp":
        return inlp(x, y)
    raise ValueError(f"no erasure {method!r}; there are 'leace', 'inlp' and 'mean'")


def projection(
    directions: Float[Tensor, "direction d_model"] | Float[Tensor, " d_model"],
    *,
    mean: Float[Tensor, " d_model"] | None = None,
) -> Eraser:
    """Projects given directions out, around `mean` (zero)."""
    rows = directions if directions.ndim == 2 else directions[None]
    basis = _orthonormal(rows).to(rows.dtype)
    if not len(basis):
        raise ValueError("the directions are zero: there is nothing to project out")
    centre = torch.zeros_like(rows[0]) if mean is None else mean
    return Eraser(basis, basis, centre, f"projection of rank {len(basis)}")


def least_squares_accuracy(
    x: Float[Tensor, "example d_model"], y: Shaped[Tensor, " example"]
) -> float:
    """How often the least-squares probe of these examples is right about them."""
    _check(x, y)
    weight, bias = ridge_probe(x, y.long(), ridge=0.0)
    # After an erasure the scores are the class frequencies, up to rounding, for every example.
    scores = ((x.double() @ weight.T + bias) * 1e8).round()
    return float((scores.argmax(dim=1) == y).double().mean())


def ridge_probe(
    x: Float[Tensor, "example d_model"], y: Int[Tensor, " example"], *, ridge: float
) -> tuple[Float64[Tensor, "class d_model"], Float64[Tensor, " class"]]:
    """Weight and bias of the least-squares probe of class indicators, in closed form.

    `ridge` is in units of the mean variance of a coordinate.
    """
    hot = one_hot(y, max(2, int(y.max()) + 1)).double()
    away, target = x.double() - x.double().mean(dim=0), hot - hot.mean(dim=0)
    penalty = ridge * float(away.square().sum()) / x.shape[1]
    if penalty > 0 and len(x) < x.shape[1]:  # the same weights, from the smaller of two systems
        inner = away @ away.T + penalty * torch.eye(len(x)).to(away)
        weight = (away.T @ torch.linalg.solve(inner, target)).T
    else:
        outer = away.T @ away + penalty * torch.eye(x.shape[1]).to(away)
        weight = (torch.linalg.pinv(outer, hermitian=True) @ (away.T @ target)).T
    return weight, hot.mean(dim=0) - weight @ x.double().mean(dim=0)


def _orthonormal(rows: Tensor, against: Tensor | None = None) -> Float64[Tensor, "direction d"]:
    """An orthonormal basis of the span of `rows`, outside the span of the orthonormal `against`."""
    rows = rows.double()
    for _ in range(0 if against is None else 2):  # once more, for what rounding left
        assert against is not None
        rows = rows - rows @ against.T @ against
    _, size, basis = torch.linalg.svd(rows, full_matrices=False)
    return basis[size > _NOTHING * size.max().clamp(min=torch.finfo(rows.dtype).tiny)]


def _named(kind: str, shrinkage: float) -> str:
    return f"{kind}, shrinkage {shrinkage:g}" if shrinkage else kind


def _check(x: Float[Tensor, "example d_model"], y: Shaped[Tensor, " example"]) -> None:
    """Refused by its row: what no classifier can be fitted to."""
    check_rows(x, y)
    if y.is_floating_point():
        raise ValueError("labels are numbers, not classes: LEACE takes them, by `moments`")
    class_count(y.long())
