"""The table of a page: a result's frame as cells that read well and sort rightly."""

import inspect
import math
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np

from workbench.results import Result

LEVEL = 0.05
"""Rows whose p-value is at most this are marked."""

BOUNDS = "95 % bounds"

MOST = 2000
"""More rows than this make a page slow to open; the strongest are kept."""

MOST_OF_A_PART = 300
"""The same for each table of a result that is made of several."""


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
    """The columns, the rows in the order in which they are first seen, and how many there were.

    `title` and `means` say of which part of a result it is; both are empty where there is one.
    """

    columns: list[Column]
    rows: list[Row]
    total: int
    order: str
    title: str = ""
    means: str = ""

    @property
    def bounded(self) -> bool:
        """Whether there are bounds to explain."""
        return any(column.name.endswith(BOUNDS) for column in self.columns)

    @property
    def tested(self) -> bool:
        """Whether there are p-values, so that rows are marked."""
        return any(column.name == "p" for column in self.columns)


def tables(result: Result) -> list[Table]:
    """The table of a result, or those of its parts where it is made of other results."""
    if not parts(result):
        return [_table(result, MOST)]
    return [
        replace(
            _table(part, MOST_OF_A_PART),
            title=name.replace("_", " "),
            means=(inspect.getdoc(type(part)) or "").split("\n\n")[0].replace("\n", " "),
        )
        for name, part in parts(result).items()
    ]


def parts(result: Result) -> dict[str, Result]:
    """The results that this one is made of, by the names of their fields."""
    held = {one.name: getattr(result, one.name) for one in fields(cast(Any, result))}
    return {name: one for name, one in held.items() if isinstance(one, Result)}


def _table(result: Result, most: int) -> Table:
    """One row per cell of the result; the strongest first where there are p-values.

    The two bounds of a value share a column. Values that are the same along one of the axes, as
    a layer's is for all of its heads, are left out: they would be counted again and again.
    """
    values, means = _described(result)
    total = len(next(iter(values.values()), ()))
    kept, order = np.arange(total), "in the order of the result"
    by = next((name for name in means if np.issubdtype(values[name].dtype, np.number)), "")
    if "p" in values:
        kept = np.argsort(-np.nan_to_num(np.abs(values[by])), kind="stable")
        order = f"by the size of {by}"
    values = {name: column[kept[:most]] for name, column in values.items()}
    columns, cells = _columns(values, means)
    lines = list(zip(*cells, strict=True))
    marked = values["p"] <= LEVEL if "p" in values else np.zeros(len(lines), dtype=bool)
    rows = [Row(list(line), bool(mark)) for line, mark in zip(lines, marked, strict=True)]
    return Table(columns, rows, total, order)


def _described(result: Result) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The columns of the frame, axes first; and the meaning of each that is a value.

    Places along an axis go by their names where they have some; where there is but one name,
    as of the only metric, it is no column.
    """
    frame, dataset = result.to_frame(), result.to_xarray()
    columns = {str(name): frame[name].to_numpy() for name in frame.columns}
    labels = _labels(result)
    axes = {name: column for name, column in columns.items() if name in dataset.sizes}
    values = {
        name: column
        for name, column in columns.items()
        if name not in {*axes, *labels.values()} and len(dataset[name].dims) >= len(axes)
    }
    means = {name: str(dataset[name].attrs.get("long_name", "")) for name in values}
    named = {name: _named(result, columns, name, labels.get(name, name)) for name in axes}
    alone = [
        name
        for name in labels
        if name in named and dataset.sizes[name] == 1 and named[name].dtype == object
    ]
    return {name: one for name, one in named.items() if name not in alone} | values, means


def _labels(result: Result) -> dict[str, str]:
    """For each axis whose places have names, the field that holds them: the first such list."""
    found: dict[str, str] = {}
    for one in fields(cast(Any, result)):
        axis = one.metadata.get("axis")
        if axis and isinstance(getattr(result, one.name), list):
            found.setdefault(axis, one.name)
    return found


def _named(result: Result, columns: dict[str, np.ndarray], axis: str, label: str) -> np.ndarray:
    """The names of an axis's places; those that are tuples, as heads are, joined: "5.3"."""
    if label in columns:
        return _plain(columns[label])
    names = [".".join(map(str, name)) for name in getattr(result, label)]
    return np.array([names[int(at)] for at in columns[axis]], dtype=object)


def _plain(column: np.ndarray) -> np.ndarray:
    """Names that are all numbers, as numbers, to be sorted as such."""
    names = column.tolist()
    decimal = all(isinstance(one, str) and one.isdecimal() for one in names)
    return np.array([int(one) for one in names]) if decimal else column


def _columns(
    values: dict[str, np.ndarray], means: dict[str, str]
) -> tuple[list[Column], list[list[Cell]]]:
    """Columns and their cells; low and high become one column of bounds."""
    columns, cells = [], []
    for name, column in values.items():
        start = name.removesuffix("low")
        if name.endswith("low") and f"{start}high" in values:
            both = f"{means[name]}; {means[f'{start}high']}".strip("; ")
            columns.append(Column(f"{start.replace('_', ' ')}{BOUNDS}", both, "number"))
            cells.append(_bounds(column, values[f"{start}high"]))
        elif not (name.endswith("high") and f"{name.removesuffix('high')}low" in values):
            kind = "number" if np.issubdtype(column.dtype, np.number) else "text"
            columns.append(Column(name.replace("_", " "), means.get(name, ""), kind))
            cells.append(_chances(column) if name == "p" else _cells(column))
    return columns, cells


def _cells(values: np.ndarray) -> list[Cell]:
    style = _style(values)
    return [Cell(_text(value, style), _key(value)) for value in values.tolist()]


def _chances(values: np.ndarray) -> list[Cell]:
    return [Cell(_chance(value), _key(value)) for value in values.tolist()]


def _bounds(low: np.ndarray, high: np.ndarray) -> list[Cell]:
    style = _style(np.concatenate([low, high]))
    return [
        Cell(f"[{_text(one, style)}, {_text(other, style)}]", _key(one))
        for one, other in zip(low.tolist(), high.tolist(), strict=True)
    ]


def _style(values: np.ndarray) -> str:
    """How the numbers of a column are written: enough decimals for the largest, signs if any."""
    if not np.issubdtype(values.dtype, np.floating):
        return ""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
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
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)
