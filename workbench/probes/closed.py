"""Probes that have a formula: ridge, difference of means, linear discriminant.

All are functions of sums over examples, which can be taken batch by batch: `Moments` of parts add
up to the moments of the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from workbench.probes.examples import Examples
from workbench.probes.fitting import Fits
from workbench.probes.probe import LinearProbe, check_classes, check_rows, class_count
from workbench.probes.splits import Splits, checked

Formula = Literal["ridge", "mass-mean", "whitened mass-mean", "lda"]

SHRINKAGE = 1e-6
"""The share of the mean variance that is added to every direction, so that inverses exist."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over examples: all that the closed forms need. `target` is a class, or the number."""

    count: float
    x: Float[Tensor, " d_model"]
    xx: Float[Tensor, "d_model d_model"]
    y: Float[Tensor, " target"]
    xy: Float[Tensor, "d_model target"]
    classes: int

    @classmethod
    def of(
        cls, x: Float[Tensor, "example d_model"], y: Shaped[Tensor, " example"], *, classes: int
    ) -> "Moments":
        """Of some examples, in float64. `classes` is how many there are anywhere; 1 for numbers."""
        check_rows(x, y)
        if not len(x):
            raise ValueError("there is no example: moments are of one or more")
        x = x.double()
        if classes == 1:
            target = y.double()[:, None]
        else:
            if y.is_floating_point():
                raise ValueError(f"the labels are numbers, not {classes} classes: take classes=1")
            check_classes(y, classes)
            target = torch.nn.functional.one_hot(y.long(), classes).double()
        return cls(float(len(x)), x.sum(0), x.T @ x, target.sum(0), x.T @ target, classes)

    def __add__(self, other: "Moments") -> "Moments":
        if self.classes != other.classes or self.x.shape != other.x.shape:
            raise ValueError(
                f"moments of {self.classes} classes and width {len(self.x)} do not add to those of "
                f"{other.classes} and {len(other.x)}: take both of the same kind of examples"
            )
        return Moments(
            self.count + other.count,
            self.x + other.x,
            self.xx + other.xx,
            self.y + other.y,
            self.xy + other.xy,
            self.classes,
        )

    @property
    def covariance(self) -> Float[Tensor, "d_model d_model"]:
        """Of the activations."""
        mean = self.x / self.count
        return self.xx / self.count - torch.outer(mean, mean)

    @property
    def means(self) -> Float[Tensor, "class d_model"]:
        """Of the activations of each class."""
        absent = (self.y == 0).nonzero()[:, 0].tolist()
        if self.classes < 2 or absent:
            found = f"class {absent[0]} has no example" if absent else "these labels are numbers"
            raise ValueError(f"{found}: a difference of means needs examples of every class")
        return (self.xy / self.y).T

    @property
    def within(self) -> Float[Tensor, "d_model d_model"]:
        """The covariance around the classes' own means."""
        means = self.means
        return self.xx / self.count - (means.T * (self.y / self.count)) @ means


def probe_of(moments: Moments, formula: Formula, *, l2: float = 1e-3) -> LinearProbe:
    """The probe that a formula gives.

    ridge                least squares on standardised activations, plus l2 * |weight|^2; of
                         classes, on an indicator of each
    mass-mean            the difference of the two classes' means, cut in the middle
    whitened mass-mean   the same, through the inverse covariance within classes (Marks & Tegmark
                         2023): the best direction for equal normal classes
    lda                  log-odds of normal classes that share a covariance, with their frequencies
    """
    if formula == "ridge":
        return _ridge(moments, l2)
    if formula == "lda":
        return _lda(moments)
    if formula not in get_args(Formula):
        raise ValueError(f"no formula {formula!r}; there are {', '.join(get_args(Formula))}")
    if moments.classes != 2:
        raise ValueError(f"a difference of means is of 2 classes, not {moments.classes}: take lda")
    low, high = moments.means
    way = high - low
    if formula == "whitened mass-mean":
        way = torch.linalg.solve(_steadied(moments.within), way)
    return LinearProbe(way[None], -(way @ (low + high) / 2)[None], 2, formula)


def fit_formula(
    examples: Examples, splits: Splits, *, formula: Formula, l2: Sequence[float] = (1e-3,)
) -> Fits:
    """The probe that a formula gives, for every layer, fold and (for ridge) regularisation."""
    checked(examples, splits)
    strengths = tuple(l2) if formula == "ridge" else (0.0,)
    weight, bias = [], []
    for x in examples.x:
        for train, _ in splits:
            moments = Moments.of(x[train], examples.y[train], classes=examples.classes)
            for strength in strengths:
                found = probe_of(moments, formula, l2=strength)
                weight.append(found.weight.to(x.dtype))
                bias.append(found.bias.to(x.dtype))
    shape = (len(examples.x), len(splits), 1, len(strengths))
    blank = torch.zeros(shape, dtype=torch.float64)
    weights, biases = torch.stack(weight), torch.stack(bias)
    return Fits(
        weights.unflatten(0, shape), biases.unflatten(0, shape), blank, blank, strengths,
        examples.classes,
    )  # fmt: skip


def fit_ridge(
    x: Float[Tensor, "example d_model"], y: Shaped[Tensor, " example"], *, l2: float = 1e-3
) -> LinearProbe:
    """A ridge regression on numbers (or, of classes, on their indicators)."""
    check_rows(x, y)
    classes = 1 if y.is_floating_point() else class_count(y)
    return probe_of(Moments.of(x, y, classes=classes), "ridge", l2=l2)


def explained(guess: Float[Tensor, " example"], y: Float[Tensor, " example"]) -> float:
    """R squared: 1 is exact, 0 no better than the mean of these very numbers, below: worse."""
    check_rows(guess, y)
    rest, all_of_it = (y - guess).square().sum(), (y - y.mean()).square().sum()
    if float(all_of_it) == 0:
        raise ValueError("all numbers are equal: there is nothing to explain")
    return 1 - float(rest / all_of_it)


def _ridge(moments: Moments, l2: float) -> LinearProbe:
    if l2 <= 0:
        raise ValueError(f"l2 is {l2:g}: a ridge needs it positive")
    mean, share = moments.x / moments.count, moments.y / moments.count
    covariance = moments.covariance
    variance = covariance.diagonal().clamp(min=0)
    floor = (moments.xx.diagonal() / moments.count).clamp(min=1e-300) * 1e-12
    system = covariance + l2 * torch.diag(torch.where(variance > floor, variance, 1.0))
    cross = moments.xy / moments.count - torch.outer(mean, share)
    weight = torch.linalg.solve(system, cross).T
    bias = share - weight @ mean
    if moments.classes == 2:  # one row: the second indicator, cut at one half
        weight, bias = weight[1:], bias[1:] - 0.5
    return LinearProbe(weight, bias, moments.classes, f"ridge, l2 {l2:g}")


def _lda(moments: Moments) -> LinearProbe:
    means = moments.means
    weight = torch.linalg.solve(_steadied(moments.within), means.T).T
    bias = -(weight * means).sum(dim=1) / 2 + (moments.y / moments.count).log()
    if moments.classes == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    return LinearProbe(weight, bias, moments.classes, "lda")


def _steadied(covariance: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "d_model d_model"]:
    mean = covariance.diagonal().mean().clamp(min=1e-300)
    return covariance + SHRINKAGE * mean * torch.eye(len(covariance)).to(covariance)
