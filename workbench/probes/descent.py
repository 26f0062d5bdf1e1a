"""Down to the optimum of many logistic objectives on one set of activations, all at once."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Rows = Float[Tensor, "row class column"]
Scores = Float[Tensor, "row class example"]
PerRow = Float[Tensor, " row"]


@dataclass(frozen=True, eq=False)
class Space:
    """Activations in coordinates in which all parts are nearly standardised, a column of ones last.

    transposed   the same, laid out the other way: products with few rows are slow without it
    """

    x: Float[Tensor, "example column"]
    transposed: Float[Tensor, "column example"]

    def to(self, dtype: torch.dtype) -> "Space":
        """The same numbers in another precision."""
        return self if self.x.dtype == dtype else Space(self.x.to(dtype), self.transposed.to(dtype))


@dataclass(frozen=True, eq=False)
class Objectives:
    """Mean loss over each row's examples, plus penalty / 2 * weight^2.

    share    of each example in the mean: 0 outside of the row's part
    target   1 where the example is of the class
    scale    the part's standard deviations; gradients are measured in units of its activations
    part     which part a row is fitted to
    """

    share: Float[Tensor, "row 1 example"]
    target: Scores
    penalty: Float[Tensor, "row 1 column"]
    scale: Float[Tensor, "row 1 column"]
    l2: PerRow
    part: Int[Tensor, " row"]

    def to(self, dtype: torch.dtype) -> "Objectives":
        """The same numbers in another precision."""
        moved = [getattr(self, one.name).to(dtype) for one in fields(self)[:-1]]
        return Objectives(*moved, part=self.part)

    def rows(self, kept: Bool[Tensor, " row"]) -> "Objectives":
        """Some of the rows."""
        return Objectives(*(getattr(self, one.name)[kept] for one in fields(self)))

    def residual(self, scores: Scores) -> Scores:
        """The gradient of the loss in the scores."""
        return (chance(scores) - self.target) * self.share

    def loss(self, weight: Rows, scores: Scores) -> PerRow:
        """The objective of every row."""
        if scores.shape[1] == 1:
            each = torch.nn.functional.softplus(scores) - self.target * scores
        else:
            each = scores.logsumexp(dim=1, keepdim=True) * self.target - self.target * scores
        return total(each * self.share) + total(self.penalty * weight.square()) / 2

    def size(self, gradient: Rows) -> PerRow:
        """The norm of every row's gradient."""
        return (gradient / self.scale).flatten(1).norm(dim=1)


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """Solves (curvature * Gram / examples + l2) step = gradient for every row.

    Dense inverses where there are one or two l2, at a fixed curvature; else the eigenbasis, in
    which every row has a curvature and an l2 of its own. Parts with few examples for their width
    span other directions than all examples do: `own` has what they span, part by part.
    """

    basis: Float[Tensor, "column column"]
    values: Float[Tensor, " column"]
    inverses: tuple[tuple[float, Float[Tensor, "column column"]], ...] = ()
    own: tuple[
        tuple[int, Float[Tensor, "column _direction"], Float[Tensor, " _direction"]], ...
    ] = ()

    def with_parts(
        self,
        space: Space,
        parts: Bool[Tensor, "part example"],
        scale: Float[Tensor, "part column"],
    ) -> "Preconditioner":
        """Knowing what each part spans that is unlike the whole.

        Those with fewer than two examples for every column, or a column that hardly varies there.
        """
        unlike = (parts.sum(dim=1) < 2 * space.x.shape[1]) | (scale.amin(dim=1) < 0.3)
        own = []
        for number in unlike.nonzero()[:, 0].tolist():
            x = space.x[parts[number]] / scale[number]
            _, sizes, rows = torch.linalg.svd(x, full_matrices=False)
            own.append((number, rows.T, sizes.square() / len(x)))
        return replace(self, own=tuple(own))

    @classmethod
    def of(cls, space: Space, l2: PerRow, curvature: float) -> "Preconditioner":
        """From the Gram matrix of all examples, whatever part a row is fitted to."""
        x = space.x.float()
        gram = (x.T @ x) / len(x)
        different = l2.unique().tolist()
        if len(different) > 2:
            values, basis = torch.linalg.eigh(gram[:-1, :-1])
            one = torch.ones_like(values[:1])
            return cls(torch.block_diag(basis, one[None]), torch.cat([values.clamp(min=0), one]))
        inverses = []
        for one in different:
            penalty = torch.full_like(gram[0], one)
            penalty[-1] = 1e-6
            root, failed = torch.linalg.cholesky_ex(gram * curvature + torch.diag(penalty))
            if bool(failed):  # l2 is lost in the rounding of the Gram matrix
                exact = space.x.T @ space.x / len(x) * curvature + torch.diag(penalty).double()
                root = torch.linalg.cholesky(exact).float()
            inverses.append((one, torch.cholesky_inverse(root)))
        return cls(gram, gram[0], tuple(inverses))

    def step(self, given: Objectives, gradient: Rows, curvature: PerRow) -> Rows:
        """What a Newton step of that curvature would undo; always downhill."""
        scaled = gradient / given.scale
        found = self._shared(scaled.float(), given.l2, curvature).to(gradient)
        for number, basis, values in self.own:
            mine = given.part == number
            if bool(mine.any()):
                found[mine] = _spanned(scaled[mine], basis, values, given.l2[mine], curvature[mine])
        # Where l2 is small beside what activations vary, rounding can turn a step uphill.
        uphill = total(scaled * found) <= 0
        return torch.where(uphill[:, None, None], scaled, found) / given.scale

    def _shared(self, flat: Rows, l2: PerRow, curvature: PerRow) -> Rows:
        if self.inverses:
            found = flat @ self.inverses[0][1]
            for one, inverse in self.inverses[1:]:
                mine = l2.double() == one
                found[mine] = flat[mine] @ inverse
            return found
        values = curvature[:, None] * self.values + l2[:, None]
        values[:, -1] -= l2
        return flat @ self.basis / values[:, None].float() @ self.basis.T


def _spanned(
    scaled: Rows,
    basis: Float[Tensor, "column _direction"],
    values: Float[Tensor, " _direction"],
    l2: PerRow,
    curvature: PerRow,
) -> Rows:
    """A Newton step where `basis` has all that the activations span, in the gradient's precision.

    What stands outside of it is the small difference of two large numbers.
    """
    basis, values = basis.to(scaled), values.to(scaled)
    penalty = l2.to(scaled)[:, None, None]
    inverse = 1 / (curvature.to(scaled)[:, None, None] * values + penalty) - 1 / penalty
    return scaled / penalty + ((scaled @ basis) * inverse) @ basis.T


@dataclass(frozen=True, eq=False)
class _Walk:
    """Where every row is, and where it came from.

    step   the gradient, preconditioned; steep   their product; along   the way to go
    """

    weight: Rows
    scores: Scores
    gradient: Rows
    step: Rows
    steep: PerRow
    along: Rows
    curvature: PerRow
    goal: PerRow
    number: Int[Tensor, " row"]

    def rows(self, kept: Bool[Tensor, " row"]) -> "_Walk":
        return _Walk(*(getattr(self, one.name)[kept] for one in fields(self)))


def lowest(
    space: Space, given: Objectives, turn: Preconditioner, start: Rows, *, goal: PerRow, most: int
) -> tuple[Rows, int]:
    """Weights whose gradients are no larger than `goal`, or as small as `most` steps make them."""
    done = start.clone()
    walk = _beginning(space, given, turn, start, goal)
    for number in range(most):
        far = given.size(walk.gradient) > walk.goal
        if not bool(far.any()):
            break
        if float(far.float().mean()) < 0.8:
            done[walk.number] = walk.weight
            walk, given = walk.rows(far), given.rows(far)
        walk = _advanced(space, given, turn, walk, fresh=number % 25 == 24)
    else:
        number = most
    done[walk.number] = walk.weight
    return done, number


def _beginning(
    space: Space, given: Objectives, turn: Preconditioner, weight: Rows, goal: PerRow
) -> _Walk:
    scores = pushed(space, weight)
    gradient = pulled(space, given.residual(scores)) + given.penalty * weight
    curvature = _mean_curvature(given, scores)
    step = turn.step(given, gradient, curvature)
    number = torch.arange(len(weight), device=weight.device)
    steep = total(gradient * step)
    return _Walk(weight, scores, gradient, step, steep, -step, curvature, goal, number)


def _advanced(
    space: Space, given: Objectives, turn: Preconditioner, walk: _Walk, *, fresh: bool
) -> _Walk:
    """One step. A fresh one forgets the way so far, and takes the curvature where it is."""
    moved = pushed(space, walk.along)
    length = _length(given, walk, moved)
    weight = walk.weight + length * walk.along
    # Scores that are added up drift; now and then they are computed from the weights.
    scores = pushed(space, weight) if fresh else walk.scores + length * moved
    gradient = pulled(space, given.residual(scores)) + given.penalty * weight
    curvature = _mean_curvature(given, scores) if fresh else walk.curvature
    step = turn.step(given, gradient, curvature)
    steep = total(gradient * step)
    turned = (steep - total(gradient * walk.step)) / walk.steep.clamp(min=1e-37)
    along = -step + (0.0 if fresh else turned.clamp(min=0)[:, None, None]) * walk.along
    uphill = total(along * gradient) >= 0
    along = torch.where(uphill[:, None, None], -step, along)
    return replace(
        walk, weight=weight, scores=scores, gradient=gradient, step=step, steep=steep,
        along=along, curvature=curvature,
    )  # fmt: skip


def _length(given: Objectives, walk: _Walk, moved: Scores) -> Float[Tensor, "row 1 1"]:
    """How far to go: Newton's method on the slope along the way, kept in a bracket."""
    flat = total(given.penalty * walk.along.square())
    lean = total(given.penalty * walk.along * walk.weight)
    length = torch.zeros_like(flat)
    low, high = torch.zeros_like(flat), torch.full_like(flat, torch.inf)
    first = total(walk.gradient * walk.along).abs()
    for _ in range(5):
        p = chance(walk.scores + length[:, None, None] * moved)
        slope = total((p - given.target) * given.share * moved) + lean + length * flat
        bend = (curvature_along(p, moved, given.share) + flat).clamp(min=1e-30)
        if bool((slope.abs() <= 0.05 * first).all()):
            break
        low, high = torch.where(slope < 0, length, low), torch.where(slope >= 0, length, high)
        trial = length - slope / bend
        middle = torch.where(high.isinf(), 2 * low + 1, (low + high) / 2)
        length = torch.where((trial > low) & (trial < high), trial, middle)
    return length[:, None, None]


def chance(scores: Scores) -> Scores:
    """Scores as probabilities."""
    return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(dim=1)


def curvature_along(p: Scores, moved: Scores, share: Float[Tensor, "row 1 example"]) -> PerRow:
    """The second derivative of the loss along a way, given what it does to the scores."""
    if p.shape[1] == 1:
        return total(p * (1 - p) * moved.square() * share)
    middle = (p * moved).sum(dim=1, keepdim=True)
    return total(p * (moved - middle).square() * share)


def _mean_curvature(given: Objectives, scores: Scores) -> PerRow:
    p = chance(scores)
    return (total(p * (1 - p) * given.share) / p.shape[1]).clamp(min=1e-6)


def pushed(space: Space, weight: Rows) -> Scores:
    """The scores that weights give."""
    return (weight.flatten(0, 1) @ space.transposed).unflatten(0, weight.shape[:2])


def pulled(space: Space, residual: Scores) -> Rows:
    """The gradient in the weights, from that in the scores."""
    return (residual.flatten(0, 1) @ space.x).unflatten(0, residual.shape[:2])


def total(values: Float[Tensor, "row class item"]) -> PerRow:
    """The sum over all but the rows."""
    return values.flatten(1).sum(dim=1)
