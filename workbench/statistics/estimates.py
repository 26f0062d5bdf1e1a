"""How large is it, and how sure are we? A mean over prompts, with bounds."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from scipy import stats
from torch import Tensor

from workbench.statistics.randomness import Randomness, numpy_generator
from workbench.statistics.units import (
    CHUNK,
    Array,
    Groups,
    finite_array,
    labels_of,
    mix,
    sum_by_unit,
    units_of,
)

FEWEST_TO_RESAMPLE = 4
"""With fewer units a resample is too often one unit repeated; Student's t is used instead."""

WIDEST = 3.0
"""A bound lies at most this many times as far out as Student's: where one prompt makes the whole
effect, resamples without that prompt have next to no spread and the bootstrap's t explodes.
Against no limit, coverage of normal, exponential and log-normal means stays within 0.01."""


@dataclass(frozen=True)
class Estimate:
    """A mean and the bounds that cover the true mean in `level` of all samples.

    `n` counts what was resampled: prompts, or groups where groups were given.
    """

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def __str__(self) -> str:
        half = (self.high - self.low) / 2
        known = math.isfinite(half) and half > 0
        digits = min(max(1 - math.floor(math.log10(half)), 0), 9) if known else 2
        numbers = (f"{number:+.{digits}f}" for number in (self.value, self.low, self.high))
        confidence = "" if self.level == 0.95 else f" ({self.level:.3g} level)"
        return "{} [{}, {}]".format(*numbers) + f"{confidence}, n = {self.n}"


class Bounds(NamedTuple):
    """The mean over prompts of each cell, and the bounds that cover the true mean."""

    mean: Float64[Tensor, "*cells"]
    low: Float64[Tensor, "*cells"]
    high: Float64[Tensor, "*cells"]


def estimate(
    values: Shaped[Tensor, " batch"],
    *,
    groups: Groups | None = None,
    seed: Randomness = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """The mean of one value per prompt, with bounds; the bounds are those of `bounds`."""
    found = bounds(values, groups=groups, seed=seed, level=level, resamples=resamples)
    n = values.shape[-1] if groups is None else len(np.unique(labels_of(groups)))
    return Estimate(found.mean.item(), found.low.item(), found.high.item(), n, level)


def proportion(
    successes: Shaped[Tensor, " batch"], *, groups: Groups | None = None, level: float = 0.95
) -> Estimate:
    """The share of prompts that succeeded (values 0 or 1), with exact binomial bounds.

    16 of 16 gives [0.79, 1]. Bounds cover at least at `level`; with groups, at about `level`.
    """
    values = finite_array(successes)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"successes are 0 or 1, found {values[~np.isin(values, (0, 1))][0]:g}: "
            "use estimate for other values"
        )
    member, size = units_of(groups, values.shape[-1])
    mean, low, high = _binomial(values[None], member, size, level=level)
    return Estimate(float(mean[0]), float(low[0]), float(high[0]), len(size), level)


def bounds(
    values: Shaped[Tensor, "*cells batch"],
    *,
    groups: Groups | None = None,
    seed: Randomness = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> Bounds:
    """Mean and bounds of every cell over its last axis, all cells on the same resamples.

    Studentised bootstrap over prompts, or over whole `groups`; Student's t below 4 units. A cell
    whose values are all equal has that value as both bounds. Values that are all 0 or 1 (and not
    all 0, unless they are booleans) are successes and get the exact bounds of `proportion`.
    """
    _check_level(level, resamples)
    array = finite_array(values)
    member, size = units_of(groups, array.shape[-1])
    flat = array.reshape(-1, array.shape[-1])
    if values.dtype == torch.bool or (np.isin(flat, (0, 1)).all() and flat.any()):
        found = _binomial(flat, member, size, level=level)
    else:
        units, generator = len(size), numpy_generator(seed)
        weights = generator.multinomial(units, np.full(units, 1 / units), size=resamples)
        found = _bootstrap(flat, member, size, weights=weights.astype(float), level=level)
    mean, low, high = (torch.from_numpy(one).reshape(values.shape[:-1]) for one in found)
    return Bounds(mean, low, high)


def _bootstrap(
    values: Array, member: Array, size: Array, *, weights: Array, level: float
) -> tuple[Array, Array, Array]:
    units = len(size)
    mean = values.mean(1)
    residual = sum_by_unit(values - mean[:, None], member, units)
    error = np.sqrt((residual**2).sum(0) * units / (units - 1)) / size.sum()
    student = stats.t.ppf((1 + level) / 2, units - 1)
    below = above = np.full_like(mean, student)
    if units >= FEWEST_TO_RESAMPLE:
        step = max(1, CHUNK // len(weights))
        tails = [
            _tails(residual[:, start : start + step], size, weights, level=level)
            for start in range(0, max(len(mean), 1), step)
        ]
        below, above = (np.concatenate(side) for side in zip(*tails, strict=True))
    low = mean - error * np.clip(below, 0, WIDEST * student)
    high = mean + error * np.clip(above, 0, WIDEST * student)
    constant = values.max(1) == values.min(1)
    mean, low, high = (np.where(constant, values[:, 0], one) for one in (mean, low, high))
    return mean, low, high


def _tails(residual: Array, size: Array, weights: Array, *, level: float) -> tuple[Array, Array]:
    """How many standard errors below and above the mean the bounds lie, per cell."""
    units = len(size)
    sizes = size[:, None]
    drawn = mix(weights, sizes)
    shift = mix(weights, residual) / drawn
    # Linearised variance of a ratio of sums; with one prompt per unit, the usual variance.
    spread = mix(weights, residual**2) + shift**2 * mix(weights, sizes**2)
    spread -= 2 * shift * mix(weights, residual * sizes)
    spread[spread <= 1e-12 * (residual**2).sum(0)] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = shift * drawn / np.sqrt(spread * units / (units - 1))
    t = np.sort(np.nan_to_num(t, nan=0.0, posinf=np.inf, neginf=-np.inf), axis=0)
    tail = math.floor((len(t) + 1) * (1 - level) / 2)
    return t[-tail], -t[tail - 1]


def _binomial(
    values: Array, member: Array, size: Array, *, level: float
) -> tuple[Array, Array, Array]:
    units, n = len(size), int(size.sum())
    mean = values.mean(1)
    residual = sum_by_unit(values - mean[:, None], member, units)
    between = (residual**2).sum(0) * units / (units - 1) / n**2
    within = mean * (1 - mean) / (n - 1)
    # The effective sample size: between n where groups do not matter and the number of groups.
    ratio = np.where(within > 0, 1.0, units / n)
    np.divide(within, between, out=ratio, where=(between > 0) & (within > 0))
    effective = n * np.clip(ratio, units / n, 1) if units < n else np.full_like(mean, float(n))
    hits, misses = mean * effective, (1 - mean) * effective
    low = stats.beta.ppf((1 - level) / 2, hits, misses + 1)
    high = stats.beta.ppf((1 + level) / 2, hits + 1, misses)
    return mean, np.where(hits > 0, low, 0.0), np.where(misses > 0, high, 1.0)


def _check_level(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1: 0.95 means 95 % bounds")
    if (resamples + 1) * (1 - level) / 2 < 1:
        raise ValueError(
            f"{resamples} resamples cannot give {level:.3g} bounds: "
            f"take at least {math.ceil(2 / (1 - level))}"
        )
