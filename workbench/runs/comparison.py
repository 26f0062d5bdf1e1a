"""Do runs differ by more than chance? Configs, headlines with bounds, and arrays cell by cell."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any, Literal

import numpy as np
from scipy import stats

from workbench.runs.headlines import Headline, headlines
from workbench.runs.opening import Run

Verdict = Literal["exceeds the bounds", "within the bounds", "no bounds", "equal"]


@dataclass(frozen=True)
class Difference:
    """How much a headline of one run (`second`) is above that of another (`first`)."""

    name: str
    first: str
    second: str
    values: tuple[Any, Any]
    verdict: Verdict
    bounds: tuple[float, float] | None = None

    def __str__(self) -> str:
        before, after = (_short(value) for value in self.values)
        text = f"{self.name}: {before} -> {after}"
        if self.bounds:
            change = self.values[1] - self.values[0]
            text += f", {change:+.4g} [{self.bounds[0]:+.4g}, {self.bounds[1]:+.4g}]"
        return f"{text}: {self.verdict}"


@dataclass(frozen=True)
class Cells:
    """In how many cells of an array two runs differ, and by how much at most."""

    name: str
    first: str
    second: str
    differing: int
    total: int
    largest: float
    exceeding: int | None = None

    def __str__(self) -> str:
        text = f"{self.name}: {self.differing} of {self.total} cells differ"
        if self.differing:
            text += f", by at most {self.largest:.3g}"
        if self.exceeding is not None:
            text += f"; {self.exceeding} exceed the bounds"
        return text


@dataclass(frozen=True)
class Comparison:
    """What differs between runs: their configs, their headlines, the cells of their results.

    Bounds of a difference come from the bounds of the two numbers (MOVER, Zou & Donner 2008:
    the distances to the bounds add as squares), widened for the number of comparisons in here
    (Bonferroni, by normal quantiles). They hold for runs on different prompts; runs on the same
    prompts differ less by chance, so that "within the bounds" is then no proof of equality.
    """

    runs: tuple[str, ...]
    configs: Mapping[str, tuple[Any, ...]]
    differences: tuple[Difference, ...]
    cells: tuple[Cells, ...]

    def exceeding(self) -> list[Difference]:
        """The headlines that differ by more than their bounds allow."""
        return [found for found in self.differences if found.verdict == "exceeds the bounds"]

    def __str__(self) -> str:
        lines = [f"{place}  {ident}" for place, ident in enumerate(self.runs)]
        lines.append("configs")
        for name, values in self.configs.items():
            lines.append(f"  {name}: {' | '.join(_short(value) for value in values)}")
        if not self.configs:
            lines.append("  all equal")
        for first, second in combinations(self.runs, 2):
            lines.append(f"{self.runs.index(first)} -> {self.runs.index(second)}")
            found = (*self.differences, *self.cells)
            lines += [f"  {one}" for one in found if (one.first, one.second) == (first, second)]
        return "\n".join(lines)


def compare(*runs: Run) -> Comparison:
    """What differs between any number of runs, each against each."""
    if len(runs) < 2:
        raise ValueError(f"comparing needs at least two runs, found {len(runs)}")
    names = [f"{run.name}/{run.id}" for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"a run is named twice: {', '.join(names)}")
    pairs = list(combinations(range(len(runs)), 2))
    found = [headlines(run.record) for run in runs]
    shared = [name for name in found[0] if all(name in other for other in found)]
    bounded = [name for name in shared if all(_bounded(one[name]) for one in found)]
    wider = _widened(len(pairs) * max(len(bounded), 1))
    differences = tuple(
        _difference(name, (names[a], names[b]), (found[a][name], found[b][name]), wider=wider)
        for a, b in pairs
        for name in shared
    )
    cells = tuple(cell for a, b in pairs for cell in _cells(runs[a], runs[b], (names[a], names[b])))
    return Comparison(tuple(names), _configs(runs), differences, cells)


def _configs(runs: tuple[Run, ...]) -> dict[str, tuple[Any, ...]]:
    keys = dict.fromkeys(key for run in runs for key in run.config)
    values = {key: tuple(run.config.get(key, "-") for run in runs) for key in keys}
    return {key: chosen for key, chosen in values.items() if any(v != chosen[0] for v in chosen)}


def _difference(
    name: str, between: tuple[str, str], pair: tuple[Headline, Headline], *, wider: float
) -> Difference:
    values = (pair[0].value, pair[1].value)
    if values[0] == values[1]:
        return Difference(name, *between, values, "equal")
    if not all(_bounded(one) for one in pair):
        return Difference(name, *between, values, "no bounds")
    first, second = (np.array([one.value, one.low, one.high], dtype=float) for one in pair)
    low, high = _mover(first, second, wider)
    exceeds = low > 0 or high < 0
    verdict: Verdict = "exceeds the bounds" if exceeds else "within the bounds"
    return Difference(name, *between, values, verdict, (float(low), float(high)))


def _mover(first: np.ndarray, second: np.ndarray, wider: float) -> tuple[Any, Any]:
    """Bounds of second minus first; each holds value, lower and upper bound in its first axis."""
    change = second[0] - first[0]
    down = np.hypot(second[0] - second[1], first[2] - first[0])
    up = np.hypot(second[2] - second[0], first[0] - first[1])
    return change - wider * down, change + wider * up


def _widened(comparisons: int) -> float:
    """How much wider 95 % bounds are when they shall all hold together."""
    return float(stats.norm.ppf(1 - 0.025 / comparisons) / stats.norm.ppf(0.975))


def _bounded(one: Headline) -> bool:
    return isinstance(one.value, int | float) and one.low is not None and one.high is not None


def _cells(first: Run, second: Run, between: tuple[str, str]) -> Iterator[Cells]:
    """One entry for each array that both results have in the same shape, but for the bounds."""
    if first.record["result"]["kind"] != second.record["result"]["kind"]:
        return
    one, other = _arrays(first.result), _arrays(second.result)
    bounded = _with_bounds(one), _with_bounds(other)
    for name, values in one.items():
        others = other.get(name, np.empty(0))
        if others.shape != values.shape or name in ("low", "high"):
            continue
        apart = ~((values == others) | (np.isnan(values) & np.isnan(others)))
        largest = float(np.abs(others - values)[apart].max()) if apart.any() else 0.0
        exceeding = None
        if name == next(iter(one)) and bounded[0].shape == bounded[1].shape == (3, *values.shape):
            low, high = _mover(*bounded, _widened(values.size))
            exceeding = int(((low > 0) | (high < 0)).sum())
        yield Cells(name, *between, int(apart.sum()), values.size, largest, exceeding)


def _arrays(result: Any) -> dict[str, np.ndarray]:
    """The arrays of a result, in the order of its fields."""
    held = {field.name: getattr(result, field.name) for field in fields(result)}
    arrays = {name: value for name, value in held.items() if getattr(value, "ndim", 0)}
    return {name: np.asarray(value).astype(float) for name, value in arrays.items()}


def _with_bounds(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The first array with the fields `low` and `high`, which bound it; nothing without them."""
    stacked = [next(iter(arrays.values()), None), arrays.get("low"), arrays.get("high")]
    held = [array for array in stacked if array is not None]
    fitting = len(held) == 3 and len({array.shape for array in held}) == 1
    return np.stack(held) if fitting else np.empty(0)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
