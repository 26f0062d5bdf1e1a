"""Tests of many cells as text: one a line, with bounds and a mark where it is significant."""

from collections.abc import Callable, Iterable
from typing import Any

LEVEL = 0.05


def table(
    cells: Iterable[tuple[int, ...]],
    *,
    result: Any,
    named: str,
    value: str,
    name: Callable[[Any], str] = lambda cell: ".".join(map(str, cell)),
) -> str:
    """A line for each cell of a result that has effect, low, high, p and unit.

    `named` is the heading of the cells' names ("head", 5.3), `value` that of the effect. A star
    marks a corrected p-value of at most 0.05.
    """
    cells = list(cells)
    heading = f"{value} ({result.unit})"
    width = max([6, *(len(name(cell)) for cell in cells)]) + 2
    lines = [f"{named:<{width}}{heading:<18}{'95 % bounds':<20}p (corrected)"]
    for cell in cells:
        fields = (result.effect, result.low, result.high, result.p)
        effect, low, high, p = (float(field[cell]) for field in fields)
        bounds = f"[{low:+.3f}, {high:+.3f}]"
        mark = " *" if p <= LEVEL else ""
        lines.append(f"{name(cell):<{width}}{f'{effect:+.3f}':<18}{bounds:<20}{p:.4f}{mark}")
    return "\n".join(lines)
