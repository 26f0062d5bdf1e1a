"""How good is a probe? Shares of right answers, order, calibration: with bounds, never bare.

The plain functions take scores and labels and give a number; `judge` takes a probe and gives
estimates. Bounds are by bootstrap over groups; in studies, the spread over seeds is added.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench import statistics
from workbench.probes.probe import Probe, check_classes, check_rows, decided, log_softmax
from workbench.statistics import Estimate, Randomness
from workbench.statistics.randomness import numpy_generator

BINS = 10

Scored = Float[Tensor, "example class"]
Labels = Int[Tensor, " example"]


@dataclass(frozen=True)
class Judgement:
    """How a probe does on examples that it never saw. Higher is better, but for calibration.

    accuracy       share of right answers
    balanced       mean over classes of the share that is recognised; 1 / classes is chance
    auroc          chance that a member scores higher than another; a tie counts one half
    calibration    expected calibration error: how far confidence is from the share right
    bits           mean -log2 p(label): what one label costs to name
    """

    accuracy: Estimate
    balanced: Estimate
    auroc: Estimate
    calibration: Estimate
    bits: Estimate


def judge(
    probe: Probe,
    x: Float[Tensor, "example d_model"],
    y: Labels,
    *,
    groups: Shaped[Tensor, " example"] | None = None,
    seed: Randomness = 0,
    resamples: int = 400,
) -> Judgement:
    """How `probe` does on these examples, with bounds by bootstrap over groups (or examples)."""
    _check(probe, x, y, groups)
    scores = probe.scores(x)
    unit = torch.arange(len(y)) if groups is None else groups
    generator = numpy_generator(seed)

    def bounded(statistic: Callable[[Scored, Labels], float]) -> Estimate:
        return resampled(statistic, scores, y, groups=unit, seed=generator, resamples=resamples)

    right = decided(scores, probe.classes) == y
    return Judgement(
        accuracy=statistics.proportion(right.cpu(), groups=unit),
        balanced=bounded(balanced_accuracy),
        auroc=bounded(auroc),
        calibration=bounded(calibration_error),
        bits=statistics.estimate(bits(scores, y), groups=unit, seed=generator),
    )


def accuracy(
    probe: Probe,
    x: Float[Tensor, "example d_model"],
    y: Labels,
    *,
    groups: Shaped[Tensor, " example"] | None = None,
) -> Estimate:
    """The share of right answers, with exact bounds (at the effective size, where grouped)."""
    _check(probe, x, y, groups)
    right = (probe.predict(x) == y).cpu()
    return statistics.proportion(right, groups=groups)


def balanced_accuracy(scores: Scored, y: Labels) -> float:
    """The mean over the classes that are there of the share that is recognised."""
    right = (decided(scores, scores.shape[-1] + (scores.shape[-1] == 1)) == y).double()
    return float(torch.stack([right[y == one].mean() for one in y.unique()]).mean())


def auroc(scores: Scored, y: Labels) -> float:
    """The area under the curve; with more classes, the mean of each against the rest."""
    if scores.shape[-1] == 1:
        return statistics.auroc(scores[:, 0], y == 1)
    each = [
        statistics.auroc(scores[:, one], y == one)
        for one in range(scores.shape[-1])
        if 0 < int((y == one).sum()) < len(y)
    ]
    return float(np.mean(each))


def calibration_error(scores: Scored, y: Labels) -> float:
    """Expected calibration error: |confidence - share right|, in ten bins (Guo et al. 2017)."""
    confidence, guess = log_softmax(scores.double()).exp().max(dim=-1)
    right = (guess == y).double()
    place = (confidence * BINS).long().clamp(max=BINS - 1)
    gap = torch.zeros(BINS, dtype=torch.float64, device=y.device)
    gap.index_add_(0, place, right - confidence)
    return float(gap.abs().sum() / len(y))


def bits(
    scores: Float[Tensor, "*cells example class"], y: Labels
) -> Float[Tensor, "*cells example"]:
    """-log2 p(label) of every example."""
    chance = log_softmax(scores.double())
    index = y.expand(chance.shape[:-1])[..., None]
    return -chance.gather(-1, index)[..., 0] / np.log(2)


def resampled(
    statistic: Callable[[Scored, Labels], float],
    scores: Scored,
    y: Labels,
    *,
    groups: Shaped[Tensor, " example"],
    seed: Randomness,
    resamples: int = 400,
    level: float = 0.95,
) -> Estimate:
    """Any statistic of scores, with percentile bounds over resampled groups.

    A resample in which a class is missing is drawn again.
    """
    names, member = np.unique(groups.cpu().numpy(), return_inverse=True)
    rows = [np.flatnonzero(member == one) for one in range(len(names))]
    generator, there = numpy_generator(seed), len(y.unique())
    if there < 2 or len(names) < 2:
        raise ValueError(
            f"{there} classes in {len(names)} groups: bounds need two of each to resample"
        )
    found: list[float] = []
    for _ in range(50 * resamples):
        drawn = np.concatenate([rows[one] for one in generator.integers(0, len(rows), len(rows))])
        chosen = torch.from_numpy(drawn).to(y.device)
        if len(y[chosen].unique()) == there:
            found.append(statistic(scores[chosen], y[chosen]))
        if len(found) == resamples:
            break
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) if found else (np.nan,) * 2
    return Estimate(statistic(scores, y), float(low), float(high), len(names), level)


def _check(
    probe: Probe,
    x: Float[Tensor, "example d_model"],
    y: Labels,
    groups: Shaped[Tensor, " example"] | None,
) -> None:
    """Refused by its row: what the probe cannot be right or wrong about."""
    check_rows(x, y)
    if groups is not None and len(groups) != len(x):
        raise ValueError(
            f"{len(groups)} groups for {len(x)} examples: give each its own; row "
            f"{min(len(groups), len(x))} is the first without a partner"
        )
    if probe.classes == 1:
        raise ValueError("a probe of numbers is not right or wrong: see `explained`")
    if not len(x):
        raise ValueError("there is no example to judge by")
    check_classes(y, probe.classes)
