"""Tests of many cells as text: one a line, with bounds and a mark where it is significant."""

from collections.abc import Iterable
from typing import Any

LEVEL = 0.05


def table(cells: Iterable[tuple[int, ...]], *, result: Any, named: str, value: str) -> str:
    """A line for each cell of a result that has effect, low, high, p and unit.

    `named` is the heading of the cells' names ("head", 5.3), `value` that of the effect. A star
    marks a corrected p-value of at most 0.05.
    """
    heading = f"{value} ({result.unit})"
    lines = [f"{named:<8}{heading:<18}{'95 % bounds':<20}p (corrected)"]
    for cell in cells:
        fields = (result.effect, result.low, result.high, result.p)
        effect, low, high, p = (float(field[cell]) for field in fields)
        name, bounds = ".".join(map(str, cell)), f"[{low:+.3f}, {high:+.3f}]"
        mark = " *" if p <= LEVEL else ""
        lines.append(f"{name:<8}{f'{effect:+.3f}':<18}{bounds:<20}{p:.4f}{mark}")
    return "\n".join(lines)
