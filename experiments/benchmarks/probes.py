"""What does an honest study of probes cost, against a loop over scikit-learn?

Synthetic activations, correlated as real ones are, of the default model's size. Both sides
minimise the same objective on the same rows to the same gradient:

    study   layers x folds x regularisations x label shuffles, binary logistic. scikit-learn's side
            is a sample of those fits, spread evenly, scaled to all of them
    alone   layers x folds at one regularisation (C = 1), nothing else: the hardest case for us.
            scikit-learn fits the sampled layers, scaled to all

scikit-learn's LogisticRegression (lbfgs, float64) gets activations already standardised, and `tol`
so small that its gradient is 1e-6 of that of the zero probe: its default of 1e-4 stops short of
that. Our side is all of `probes.fit_each`, standardisation included. With --reference scipy the
other side is a loop over scipy's L-BFGS-B, the solver inside scikit-learn, on the same objective.

    python -m experiments.benchmarks.probes
    python -m experiments.benchmarks.probes --growth draw
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from scipy.optimize import minimize
from scipy.special import expit

from experiments.benchmarks import stopwatch
from workbench import probes

GRADIENT = 1e-6
"""Relative to the gradient of the zero probe: where both sides stop."""


@dataclass(frozen=True)
class Config:
    """The measurement that the README reports."""

    layers: int = 30
    folds: int = 5
    regularisations: int = 8
    shuffles: int = 20
    examples: int = 2000
    width: int = 576
    sampled_fits: int = 48  # of the study, on the other side
    sampled_layers: int = 3  # of the fits alone, on the other side
    rounds: int = 3
    reference: Literal["scikit-learn", "scipy"] = "scikit-learn"
    growth: Literal["none", "draw"] = "none"
    figure: Path = Path("probes-growth.png")
    seed: int = 0

    @property
    def l2(self) -> tuple[float, ...]:
        """From 1e-4 to 10, evenly in powers; one alone is C = 1."""
        if self.regularisations == 1:
            return (1 / (self.examples * (1 - 1 / self.folds)),)
        return tuple(np.logspace(-4, 1, self.regularisations).tolist())


Cell = tuple[int, int, int, int]
"""layer, fold, label set, regularisation"""


@dataclass(frozen=True)
class Side:
    """What one fit of the other side came to."""

    seconds: float
    loss: float
    gradient: float
    right: float


def main(config: Config) -> None:
    """Measure, and print one JSON object as the last line."""
    fitted = _reference(config.reference)
    print(f"{torch.get_num_threads()} threads; {config.layers} layers, {config.examples} examples")
    alone = replace(config, regularisations=1, shuffles=1)
    found = {
        "study_ratio": _compare(config, _spread(config), fitted, rounds=1),
        "ratio": _compare(alone, _spread_layers(alone), fitted, rounds=config.rounds),
    }
    if config.growth == "draw":
        _draw_growth(config)
    worst = {name: max(one[name] for one in found.values()) for name in ("accuracy", "loss")}
    print(
        json.dumps(
            {
                "study_ratio": found["study_ratio"]["ratio"],
                "ratio": found["ratio"]["ratio"],
                "ratio_range": found["ratio"]["range"],
                "accuracy_difference": worst["accuracy"],
                "loss_difference": worst["loss"],
                "our_gradient": max(one["ours"] for one in found.values()),
                "their_gradient": max(one["theirs"] for one in found.values()),
                "peak_gb": stopwatch.peak_gb(),
                "reference": config.reference,
                "threads": torch.get_num_threads(),
            }
        )
    )


class Data(NamedTuple):
    """Activations, how they are split, and the label sets."""

    examples: probes.Examples
    splits: probes.Splits
    sets: torch.Tensor


def data(config: Config) -> Data:
    """Activations with a few strong directions and a few loud neurons; labels, then shuffles."""
    generator = torch.Generator().manual_seed(config.seed)
    y = torch.randint(2, (config.examples,), generator=generator)
    layers = []
    for layer in range(config.layers):
        strong = torch.randn(config.examples, 64, generator=generator)
        x = strong @ torch.randn(64, config.width, generator=generator) / 4
        x += torch.randn(config.examples, config.width, generator=generator)
        away = torch.randn(config.width, generator=generator)
        x += (2.0 * layer / config.layers) * (y[:, None] - 0.5) * away / away.norm()
        x[:, :3] *= 30
        layers.append(x)
    sets = [y]
    sets += [
        y[torch.randperm(len(y), generator=generator)] for _ in range(max(config.shuffles - 1, 0))
    ]
    examples = probes.examples(torch.stack(layers), y)
    splits = probes.k_fold(examples, config.folds, seed=config.seed)
    return Data(examples, splits, torch.stack(sets))


def _compare(
    config: Config, cells: Sequence[Cell], fitted: Callable[..., np.ndarray], *, rounds: int
) -> dict[str, Any]:
    given = data(config)
    examples, splits, sets = given
    total = config.layers * config.folds * config.regularisations * config.shuffles
    ratios: list[float] = []
    rows: list[tuple[Side, float, float]] = []
    ours = theirs = gradient = 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        fits = probes.fit_each(examples, splits, l2=config.l2, label_sets=sets)
        ours = time.perf_counter() - start
        sides = [_other(fitted, given, config.l2[cell[3]], cell) for cell in cells]
        theirs = mean(side.seconds for side in sides) * total
        ratios.append(theirs / ours)
        gradient = max(gradient, float(fits.gradient.max()))
        for cell, side in zip(cells, sides, strict=True):
            layer, fold, labels, place = cell
            test = splits.test[fold]
            guess = fits.probe(layer, fold=fold, labels=labels, l2=place).predict(
                examples.x[layer][test]
            )
            right = float((guess == sets[labels][test]).double().mean())
            rows.append((side, float(fits.loss[cell]), right))
    print(
        f"{total} fits: ours {ours:.2f} s, {config.reference} {theirs:.1f} s scaled from "
        f"{len(cells)} fits; ratio {median(ratios):.1f} [{min(ratios):.1f}, {max(ratios):.1f}]"
    )
    return {
        "ratio": round(median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
        "accuracy": round(max(abs(side.right - right) for side, _, right in rows), 6),
        "loss": max(abs(side.loss - loss) / side.loss for side, loss, _ in rows),
        "ours": gradient,
        "theirs": max(side.gradient for side, _, _ in rows),
    }


def _spread(config: Config) -> list[Cell]:
    """A sample of the study's fits, each regularisation as often as any other."""
    generator = np.random.default_rng(config.seed)
    return [
        (
            int(generator.integers(config.layers)),
            int(generator.integers(config.folds)),
            int(generator.integers(config.shuffles)),
            number % config.regularisations,
        )
        for number in range(config.sampled_fits)
    ]


def _spread_layers(config: Config) -> list[Cell]:
    layers = np.linspace(0, config.layers - 1, config.sampled_layers).round().astype(int)
    return [(int(layer), fold, 0, 0) for layer, fold in product(layers, range(config.folds))]


def _other(fitted: Callable[..., np.ndarray], given: Data, l2: float, cell: Cell) -> Side:
    examples, splits, sets = given
    layer, fold, labels, _ = cell
    train, test = splits.train[fold].numpy(), splits.test[fold].numpy()
    x = examples.x[layer].double().numpy()
    middle, deviation = x[train].mean(0), x[train].std(0)
    x, y = (x - middle) / deviation, sets[labels].numpy()
    gradient = _objective(np.zeros(x.shape[1] + 1), x[train], y[train], l2)[1]
    # Their tolerance bounds the largest entry, ours the norm.
    tolerance = GRADIENT * np.linalg.norm(gradient) / np.sqrt(len(gradient))
    start = time.perf_counter()
    weight = fitted(x[train], y[train], l2, tolerance)
    seconds = time.perf_counter() - start
    loss, left = _objective(weight, x[train], y[train], l2)
    right = float(((x[test] @ weight[:-1] + weight[-1] > 0) == y[test]).mean())
    return Side(seconds, loss, float(np.linalg.norm(left) / np.linalg.norm(gradient)), right)


def _objective(
    weight: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float
) -> tuple[float, np.ndarray]:
    """Mean log-loss and penalty, and their gradient; the bias is last."""
    scores = x @ weight[:-1] + weight[-1]
    loss = (np.logaddexp(0, scores) - y * scores).mean() + l2 / 2 * (weight[:-1] ** 2).sum()
    residual = (expit(scores) - y) / len(y)
    return float(loss), np.append(x.T @ residual + l2 * weight[:-1], residual.sum())


def _reference(name: str) -> Callable[..., np.ndarray]:
    if name == "scipy":
        return _scipy
    try:
        from sklearn.linear_model import (  # pyright: ignore[reportMissingImports]
            LogisticRegression,
        )
    except ImportError:
        raise SystemExit(
            "scikit-learn is not installed here: install it (it is among the development "
            "packages), or measure against its solver alone with --reference scipy"
        ) from None

    def fitted(x: np.ndarray, y: np.ndarray, l2: float, tolerance: float) -> np.ndarray:
        one = LogisticRegression(C=1 / (l2 * len(y)), tol=tolerance, max_iter=20000).fit(x, y)
        return np.append(one.coef_[0], one.intercept_)

    return fitted


def _scipy(x: np.ndarray, y: np.ndarray, l2: float, tolerance: float) -> np.ndarray:
    # As scikit-learn calls it.
    options = {"maxiter": 20000, "maxls": 50, "gtol": tolerance, "ftol": 64 * np.finfo(float).eps}
    start = np.zeros(x.shape[1] + 1)
    return minimize(
        _objective, start, args=(x, y, l2), jac=True, method="L-BFGS-B", options=options
    ).x


def _draw_growth(config: Config) -> None:
    """Seconds of a small study against each size, the others kept; a dashed line is proportional.

    Width enters as its cube where the Gram matrix is decomposed, else as its square.
    """
    small = replace(config, layers=4, shuffles=5, regularisations=4, examples=1000, width=256)
    sizes = {
        "layers": (2, 4, 8, 16),
        "examples": (250, 500, 1000, 2000, 4000),
        "width": (64, 128, 256, 512, 1024),
        "shuffles": (2, 5, 10, 20, 40),
    }
    figure = Figure(figsize=(11, 3), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(sizes)), sizes.items(), strict=True):
        seconds = []
        for value in values:
            now = replace(small, **{name: value})
            examples, splits, sets = data(now)
            taken = stopwatch.alternate(
                {"fit": lambda e=examples, s=splits, y=sets, c=now: probes.fit_each(
                    e, s, l2=c.l2, label_sets=y)},
                rounds=2,
            )  # fmt: skip
            seconds.append(median(taken["fit"]))
        axes.loglog(values, seconds, "o-", color="#2166ac", label="measured")
        line = [seconds[0] * value / values[0] for value in values]
        axes.loglog(values, line, "--", color="#6b6b6b", label="proportional")
        axes.set(xlabel=name, ylabel="seconds", title=f"time against {name}")
        axes.set_xticks(values, [str(value) for value in values])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
        pairs = zip(values, seconds, strict=True)
        print(f"growth with {name}: " + ", ".join(f"{n}: {s:.2f} s" for n, s in pairs))
    figure.savefig(config.figure, dpi=150)
    print(f"growth drawn in {config.figure}")


if __name__ == "__main__":
    main(tyro.cli(Config))
