"""What a fit leaves behind: a small frozen value that turns activations into answers."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


class Probe:
    """Reads something off activations. Holds no data; what it learned is all it has.

    Two classes give one score, the log-odds of class 1; more give a log-probability for each, up
    to a constant. A probe of numbers gives the numbers.
    """

    kind: str
    classes: int

    def scores(self, x: Float[Tensor, "example d_model"]) -> Float[Tensor, "example class"]:
        """One score for each example, or one for each class."""
        raise NotImplementedError

    def predict(self, x: Float[Tensor, "example d_model"]) -> Shaped[Tensor, " example"]:
        """The class of each example, counted from 0, or its number."""
        return decided(self.scores(x), self.classes)

    def log_probabilities(self, x: Float[Tensor, "example d_model"]) -> Float[Tensor, "example k"]:
        """log p(class), one column for each class."""
        return log_softmax(self.scores(x))


@dataclass(frozen=True, eq=False)
class LinearProbe(Probe):
    """Scores are weight times activation plus bias, in the activations' own coordinates.

    weight    one row for two classes or for a number, else one for each class
    classes   how many; 1 where numbers are predicted
    gradient  of the objective where the fit stopped, relative to that of the zero probe; 0 for
              closed forms
    """

    weight: Float[Tensor, "class d_model"]
    bias: Float[Tensor, " class"]
    classes: int
    kind: str
    gradient: float = 0.0

    def scores(self, x: Float[Tensor, "example d_model"]) -> Float[Tensor, "example class"]:
        """One score for each example, or one for each class."""
        return x.to(self.weight.dtype) @ self.weight.T + self.bias

    @property
    def direction(self) -> Float[Tensor, " d_model"]:
        """Towards class 1 (or a larger number), of length one; only where there is one row."""
        if len(self.weight) != 1:
            raise ValueError(
                f"a probe of {self.classes} classes has a direction for each: take a row of weight"
            )
        row = self.weight[0]
        return row / row.norm().clamp(min=torch.finfo(row.dtype).tiny)

    def to(self, device: torch.device | str) -> "LinearProbe":
        """The same probe on `device`."""
        return replace(self, weight=self.weight.to(device), bias=self.bias.to(device))


def decided(scores: Shaped[Tensor, "*cells class"], classes: int) -> Shaped[Tensor, "*cells"]:
    """The class that the scores speak for; a score of exactly 0 speaks for class 0."""
    if classes == 1:
        return scores[..., 0]
    if scores.shape[-1] == 1:
        return (scores[..., 0] > 0).long()
    return scores.argmax(dim=-1)


def log_softmax(scores: Float[Tensor, "*cells class"]) -> Float[Tensor, "*cells k"]:
    """Scores as log-probabilities, one column for each class."""
    if scores.shape[-1] == 1:
        scores = torch.cat([torch.zeros_like(scores), scores], dim=-1)
    return scores.log_softmax(dim=-1)


def check_rows(
    x: Shaped[Tensor, "example ..."],
    y: Shaped[Tensor, "example ..."] | None = None,
    *,
    each: str = "example",
) -> None:
    """Refused by its row: what is not finite, and labels that are not as many."""
    if y is not None and len(y) != len(x):
        raise ValueError(
            f"{len(y)} labels for {len(x)} {each}s: give each its own; row "
            f"{min(len(y), len(x))} is the first without a partner"
        )
    for what, values in (("", x), ("the label of ", y)):
        if values is not None and values.is_floating_point() and len(values):
            bad = (~values.isfinite()).flatten(1 if values.ndim > 1 else 0)
            rows = (bad.any(dim=1) if values.ndim > 1 else bad).nonzero()
            if len(rows):
                raise ValueError(
                    f"NaN or Inf in {what}{each} {int(rows[0])}: leave it out, and say so, or find "
                    "where it comes from"
                )


def class_count(y: Int[Tensor, " example"]) -> int:
    """How many classes there are, numbered from 0 without a gap."""
    found = y.unique()
    count = len(found)
    if count < 2:
        only = "no example" if not y.numel() else f"only class {int(found[0])}"
        raise ValueError(f"there is {only} among {len(y)} labels: a probe needs two classes")
    if not found.equal(torch.arange(count, device=y.device)):
        missing = next(one for one in range(count) if one not in found.tolist())
        row = int(((y < 0) | (y >= count)).nonzero()[0])
        raise ValueError(
            f"classes are numbered 0, 1, ... without a gap: there is no {missing}, and example "
            f"{row} has {int(y[row])}; torch.unique(y, return_inverse=True)[1] numbers them"
        )
    return count


def check_classes(y: Int[Tensor, " example"], classes: int) -> None:
    """Refused by its row: a label that is none of so many classes."""
    bad = ((y < 0) | (y >= classes)).nonzero()
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"example {row} has the label {int(y[row])}, but {classes} classes are numbered 0 to "
            f"{classes - 1}"
        )
