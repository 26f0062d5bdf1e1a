"""The table of a page: a result's frame as cells that read well and sort rightly."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.results import Result

LEVEL = 0.05
"""Rows whose p-value is at most this are marked."""

MOST = 2000
"""More rows than this make a page slow to open; the strongest are kept."""


@dataclass(frozen=True)
class Column:
    """A heading, what it means in words, and whether its cells are numbers."""

    name: str
    means: str
    kind: str  # "number" or "text"


@dataclass(frozen=True)
class Cell:
    """What is read, and what is sorted by."""

    text: str
    key: str


@dataclass(frozen=True)
class Row:
    """The cells of a row, and whether it is significant."""

    cells: list[Cell]
    marked: bool


@dataclass(frozen=True)
class Table:
    """The columns, the rows in the order in which they are first seen, and how many there were."""

    columns: list[Column]
    rows: list[Row]
    total: int
    order: str

    @property
    def bounded(self) -> bool:
        """Whether there are bounds to explain."""
        return any(column.name.endswith("95 % bounds") for column in self.columns)

    @property
    def tested(self) -> bool:
        """Whether there are p-values, so that rows are marked."""
        return any(column.name == "p" for column in self.columns)


def table(result: Result) -> Table:
    """One row per cell of the result; the strongest first where there are p-values.

    The two bounds of a value share a column. Values that are the same along one of the axes, as
    a layer's is for all of its heads, are left out: they would be counted again and again.
    """
    frame, means = _described(result)
    total, tested = len(frame), "p" in frame
    order = "in the order of the result"
    if tested and means:
        value = next(iter(means))
        strength = pd.to_numeric(frame[value], errors="coerce").abs()
        frame = frame.loc[strength.sort_values(ascending=False, kind="stable").index]
        order = f"by the size of {value}"
    frame = frame.head(MOST)
    columns, cells = _columns(frame, means)
    marked = (frame["p"] <= LEVEL).tolist() if tested else [False] * len(frame)
    rows = [
        Row(list(row), mark) for row, mark in zip(zip(*cells, strict=True), marked, strict=True)
    ]
    return Table(columns, rows, total, order)


def _described(result: Result) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame, and the meaning of each of its columns that is a value and not an axis."""
    frame, dataset = result.to_frame(), result.to_xarray()
    axes = [name for name in frame if name in dataset.sizes]
    values = [
        name
        for name in frame
        if name not in axes and (name not in dataset or len(dataset[name].dims) >= len(axes))
    ]
    means = {str(name): str(dataset[name].attrs.get("long_name", "")) for name in values}
    return frame[[*axes, *values]], means


def _columns(frame: pd.DataFrame, means: dict[str, str]) -> tuple[list[Column], list[list[Cell]]]:
    """Columns and their cells; low and high become one column of bounds."""
    columns, cells = [], []
    for name in map(str, frame):
        low, high = name, f"{name.removesuffix('low')}high"
        if name.endswith("low") and high in frame:
            title = f"{name.removesuffix('low').replace('_', ' ')}95 % bounds"
            columns.append(Column(title, f"{means[low]}; {means[high]}".strip("; "), "number"))
            cells.append(_bounds(frame[low], frame[high]))
        elif not (name.endswith("high") and f"{name.removesuffix('high')}low" in frame):
            numeric = pd.api.types.is_numeric_dtype(frame[name])
            kind = "number" if numeric else "text"
            columns.append(Column(name.replace("_", " "), means.get(name, ""), kind))
            cells.append(_cells(frame[name]))
    return columns, cells


def _cells(values: pd.Series) -> list[Cell]:
    if values.name == "p":
        return [Cell(_chance(value), _key(value)) for value in values]
    style = _style(values)
    return [Cell(_text(value, style), _key(value)) for value in values]


def _bounds(low: pd.Series, high: pd.Series) -> list[Cell]:
    style = _style(pd.concat([low, high]))
    return [
        Cell(f"[{_text(one, style)}, {_text(other, style)}]", _key(one))
        for one, other in zip(low, high, strict=True)
    ]


def _style(values: pd.Series) -> str:
    """How the numbers of a column are written: enough decimals for the largest, signs if any."""
    if not pd.api.types.is_float_dtype(values):
        return ""
    finite = values[np.isfinite(values)].abs()
    largest = float(finite.max()) if len(finite) else 0.0
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0
    decimals = min(9, max(1, 3 - max(exponent - 1, 0) if exponent >= 0 else 2 - exponent))
    return f"{'+' if (values < 0).any() else ''}.{decimals}f"


def _text(value: Any, style: str) -> str:
    if not style:
        return str(value)
    if not math.isfinite(value):
        return "–" if math.isnan(value) else f"{value:+}".replace("inf", "∞")
    return format(value, style).replace("-", "−")


def _chance(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _key(value: Any) -> str:
    """Numbers so that they can be read back; empty where there is nothing to sort by."""
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else repr(float(value))
    return str(value)
