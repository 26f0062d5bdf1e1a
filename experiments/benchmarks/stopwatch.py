"""Timing several ways of doing the same, one after the other, round by round.

On a machine that does other things too, only ratios within one process mean anything: every
round times each way once, and a ratio is the median over rounds.
"""

import gc
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

Seconds = Mapping[str, list[float]]


def alternate(ways: Mapping[str, Callable[[], object]], *, rounds: int) -> Seconds:
    """Seconds that each way took in each round, after one round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number:
                taken[name].append(time.perf_counter() - start)
    return taken


def ratio(taken: Seconds, above: str, below: str) -> tuple[float, float, float]:
    """Median, smallest and largest of the rounds' ratios."""
    each = [a / b for a, b in zip(taken[above], taken[below], strict=True)]
    return round(median(each), 3), round(min(each), 3), round(max(each), 3)


def peak_gb() -> float:
    """The most memory this process has held, in GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def held_gb() -> float:
    """The memory this process holds now, in GB."""
    gc.collect()
    return _status("VmRSS") * 1024 / 1e9


def peak_of(way: Callable[[], object]) -> float | None:
    """The most memory, in GB, that one run of `way` adds to this process; None where unknown."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    except OSError:
        return None
    before = _status("VmRSS")
    way()
    return round((_status("VmHWM") - before) * 1024 / 1e9, 2)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
