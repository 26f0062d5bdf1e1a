"""The parts that figures are made of: a map, bars of the strongest, a curve with a band.

They take numbers and words, know no result, and compute nothing but where things go.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Float, Real
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from workbench.plots.style import BLUE, INK, LEVEL, LINES, RED

MOST_BARS, MANY_BARS, FEWEST_BARS = 12, 24, 8
"""How many bars a panel shows at most, and one that stands alone; and has room for at least, lest
few grow fat."""

GONE = "#d9d9d9"
"""A head that is not there."""

BAND = "95 % bounds"

_LINE, _LETTER = 0.13, 0.075
"""Inches that a line of small text is high, and a letter of it wide."""


@dataclass(frozen=True)
class Meaning:
    """What a number says, in words: its name with unit, and what each sign means."""

    label: str
    negative: str
    positive: str
    helps: str  # "negative" or "positive": the sign that is drawn in blue

    def colors(self, values: Iterable[SupportsFloat]) -> list[str]:
        """Blue where a value helps, red where it does not."""
        sign = -1 if self.helps == "negative" else 1
        return [BLUE if sign * float(value) >= 0 else RED for value in values]

    @property
    def colormap(self) -> str:
        """The diverging map, safe for colour-blind readers, whose blue end is what helps."""
        return "RdBu_r" if self.helps == "negative" else "RdBu"


@dataclass(frozen=True)
class Side:
    """What stands along one side of a map: its name, and the labels where not 0, 1, 2, ..."""

    name: str
    labels: Sequence[str] | None = None


LAYERS, HEADS = Side("layer"), Side("head")


def words(name: str) -> str:
    """A metric's name as it is read."""
    return name.replace("_", " ")


def bars_height(bars: int) -> float:
    """Inches for so many bars that stand alone."""
    return max(2.6, 1.5 + 0.22 * bars)


def grid_height(layers: int) -> float:
    """Inches that keep the rows of a map apart without making a page of it."""
    return min(8.5, max(3.6, 2.2 + 0.13 * layers))


def grid_width(columns: Side, count: int) -> float:
    """Inches that keep the columns of a map apart, as far as a page is wide."""
    each = 0.12 if columns.labels is None or _numbers(columns.labels) else 0.19
    return min(8.0, max(2.9, 1.1 + each * count))


def grid(
    axes: Axes,
    values: Float[ndarray, "row column"],
    marked: Bool[ndarray, "row column"],
    *,
    meaning: Meaning,
    columns: Side = HEADS,
    rows: Side = LAYERS,
    bound: float = 0.0,
    title: str = f"every head (outlined: corrected p ≤ {LEVEL})",
    grey: str = "removed from the model",
) -> None:
    """A map of layers and what they have, colours centred on zero, marked cells outlined.

    The colours end at `bound` on both sides; at the largest value unless it is given. `grey` says
    what cells without a number are; nothing is said where it is empty.
    """
    bound = bound or largest(values)
    image = axes.imshow(
        values,
        cmap=meaning.colormap,
        vmin=-bound,
        vmax=bound,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )
    image.cmap.set_bad(GONE)
    room = np.array(axes.bbox.size) / axes.figure.dpi / values.shape[::-1]
    _outline(axes, marked, width=min(0.9, 15 * float(room.min())))
    axes.spines[:].set_visible(False)
    axes.set(xlabel=columns.name, ylabel=rows.name)
    note = f"\n(grey: {grey})" if grey and bool(np.isnan(values).any()) else ""
    axes.set_title(f"{title}{note}", fontsize=8)
    _labelled(axes.xaxis, columns, room=float(room[0]))
    _labelled(axes.yaxis, rows, room=float(room[1]))
    bar = axes.figure.colorbar(image, ax=axes, location="bottom", aspect=28, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(meaning.label, fontsize=8)
    bar.ax.set_title(f"← {meaning.negative}", loc="left", fontsize=8)
    bar.ax.set_title(f"{meaning.positive} →", loc="right", fontsize=8)


def _outline(axes: Axes, marked: Bool[ndarray, "row column"], *, width: float) -> None:
    """A frame around every marked cell, finer where cells are narrow."""
    frames = [Rectangle((x - 0.46, y - 0.46), 0.92, 0.92) for y, x in np.argwhere(marked)]
    axes.add_collection(
        PatchCollection(frames, facecolor="none", edgecolor=INK, linewidth=width, gid="marked")
    )


def _labelled(axis: XAxis | YAxis, side: Side, *, room: float) -> None:
    """Tick labels that do not run into each other, where each has `room` inches."""
    labels = side.labels
    if labels is None or list(labels) == [str(at) for at in range(len(labels))]:
        axis.set_major_locator(MaxNLocator(integer=True, nbins=12, steps=[1, 2, 5, 10]))
        return
    words = axis.axis_name == "x" and not _numbers(labels)
    lying = not words or max(map(len, labels)) * _LETTER <= room
    least = _LINE if words else 2 * _LINE
    every = max(1, math.ceil(least / room))
    places = range(0, len(labels), every)
    axis.set_ticks(places, [labels[at] for at in places])
    if not lying:
        angle = 45 if room >= 1.5 * _LINE else 90
        turned = {"rotation": angle, "rotation_mode": "anchor", "ha": "right"}
        turned["va"] = "center" if angle == 90 else "top"
        for label in axis.get_ticklabels():
            label.set(**turned)


def _numbers(labels: Sequence[str]) -> bool:
    return all(label.isdecimal() for label in labels)


def strongest(values: Float[ndarray, "row column"], n: int) -> list[tuple[int, int]]:
    """The `n` cells that differ most from zero, strongest first."""
    there = int(np.isfinite(values).sum())  # a head that was removed is no bar
    order = np.argsort(-np.nan_to_num(np.abs(values), nan=-1.0).ravel(), kind="stable")
    order = order[: min(n, there)]
    return [(int(cell) // values.shape[1], int(cell) % values.shape[1]) for cell in order]


def head_bars(
    axes: Axes,
    values: Float[ndarray, "layer head"],
    *,
    bounds: tuple[Float[ndarray, "layer head"], Float[ndarray, "layer head"]],
    marked: Bool[ndarray, "layer head"],
    meaning: Meaning,
) -> None:
    """The strongest heads from the top down, each with its bounds; filled where marked."""
    cells = strongest(values, MOST_BARS)
    at = tuple(np.array(cells, dtype=int).reshape(-1, 2).T)
    names = [f"{layer}.{head}" for layer, head in cells]
    bounds = (bounds[0][at], bounds[1][at])
    bars(axes, values[at], bounds=bounds, marked=marked[at], names=names, meaning=meaning)
    axes.set(ylabel="layer.head")
    axes.set_title(f"strongest heads (filled: p ≤ {LEVEL})", fontsize=8)


def bars(
    axes: Axes,
    values: Float[ndarray, " row"],
    *,
    bounds: tuple[Float[ndarray, " row"], Float[ndarray, " row"]],
    marked: Bool[ndarray, " row"],
    names: Sequence[str],
    meaning: Meaning,
) -> None:
    """Named bars from the top down, each with its bounds; filled where marked."""
    rows, colors = np.arange(len(values)), meaning.colors(values)
    bar_row(axes, rows, values, bounds=bounds, marked=marked, colors=colors)
    bar_axes(axes, names, label=meaning.label)


def bar_row(
    axes: Axes,
    rows: Real[ndarray, " row"],
    values: Float[ndarray, " row"],
    *,
    bounds: tuple[Float[ndarray, " row"], Float[ndarray, " row"]],
    marked: Bool[ndarray, " row"],
    colors: Sequence[str],
    height: float = 0.68,
) -> None:
    """A bar in every row, filled where marked, with a line between its bounds."""
    fills = [color if mark else "white" for color, mark in zip(colors, marked, strict=True)]
    axes.barh(rows, values, height=height, color=fills, edgecolor=colors, linewidth=0.9)
    intervals(axes, rows, low=bounds[0], high=bounds[1])


def bar_axes(axes: Axes, names: Sequence[str], *, label: str) -> None:
    """Names and lines that bars are read by, the first on top."""
    axes.axvline(0, color=INK, linewidth=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), FEWEST_BARS) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LINES, linewidth=0.6)
    axes.set(xlabel=f"{label}\nwith 95 % bounds")


def curve(
    axes: Axes,
    x: Real[ndarray, " point"],
    y: Float[ndarray, " point"],
    *,
    bounds: tuple[Float[ndarray, " point"], Float[ndarray, " point"]],
    label: str,
    color: str = BLUE,
) -> None:
    """A line with the band of its bounds; the band is in the legend once for all curves."""
    drawn = axes.get_legend_handles_labels()[1]
    band = "_nolegend_" if BAND in drawn else BAND
    axes.fill_between(x, *bounds, color=color, alpha=0.22, linewidth=0, label=band)
    axes.plot(x, y, color=color, linewidth=1.8, label=label)
    axes.grid(axis="y", color=LINES, linewidth=0.6)


def intervals(
    axes: Axes,
    rows: Real[ndarray, " row"],
    *,
    low: Float[ndarray, " row"],
    high: Float[ndarray, " row"],
) -> None:
    """A line with end marks from the lower to the upper bound of every row."""
    axes.hlines(rows, low, high, color=INK, linewidth=1.0, gid="bounds", zorder=3)
    for ends in (low, high):
        axes.plot(ends, rows, "|", color=INK, markersize=4.5, markeredgewidth=1.0, zorder=3)


def largest(values: Float[ndarray, "..."]) -> float:
    """The largest distance from zero, or one where all is zero."""
    finite = np.abs(values[np.isfinite(values)])
    most = float(finite.max(initial=0.0))
    return most if most > 0 else 1.0
