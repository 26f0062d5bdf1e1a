"""The parts that figures are made of: a grid of heads, bars of the strongest, a curve with a band.

They take numbers and words, know no result, and compute nothing but where things go.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Real
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from workbench.plots.style import BLUE, INK, LEVEL, RED

HEADS_IN_BARS = 12


@dataclass(frozen=True)
class Meaning:
    """What a number says, in words: its name with unit, and what each sign means."""

    label: str
    negative: str
    positive: str
    helps: str  # "negative" or "positive": the sign that is drawn in blue

    def colors(self, values: Float[ndarray, " any"]) -> list[str]:
        """Blue where a value helps, red where it does not."""
        sign = -1 if self.helps == "negative" else 1
        return [BLUE if sign * value >= 0 else RED for value in values]

    @property
    def colormap(self) -> str:
        """The diverging map, safe for colour-blind readers, whose blue end is what helps."""
        return "RdBu_r" if self.helps == "negative" else "RdBu"


def grid_height(layers: int) -> float:
    """Inches that keep the rows of a map apart without making a page of it."""
    return min(8.5, max(3.6, 2.2 + 0.13 * layers))


def grid(
    axes: Axes,
    values: Float[ndarray, "layer head"],
    marked: Bool[ndarray, "layer head"],
    *,
    meaning: Meaning,
) -> None:
    """A map of layers and heads, colours centred on zero, marked cells outlined."""
    bound = _bound(values)
    image = axes.imshow(
        values,
        cmap=meaning.colormap,
        vmin=-bound,
        vmax=bound,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )
    image.cmap.set_bad("#d9d9d9")
    outlines = [Rectangle((x - 0.46, y - 0.46), 0.92, 0.92) for y, x in np.argwhere(marked)]
    axes.add_collection(
        PatchCollection(outlines, facecolor="none", edgecolor=INK, linewidth=0.9, gid="marked")
    )
    axes.spines[:].set_visible(False)
    axes.set(xlabel="head", ylabel="layer")
    axes.set_title(f"every head (outlined: corrected p ≤ {LEVEL})", fontsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=12, steps=[1, 2, 5, 10]))
    bar = axes.figure.colorbar(image, ax=axes, location="bottom", aspect=28, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(meaning.label, fontsize=8)
    bar.ax.set_title(f"← {meaning.negative}", loc="left", fontsize=8)
    bar.ax.set_title(f"{meaning.positive} →", loc="right", fontsize=8)


def strongest(values: Float[ndarray, "layer head"], n: int) -> list[tuple[int, int]]:
    """The `n` cells that differ most from zero, strongest first."""
    order = np.argsort(-np.nan_to_num(np.abs(values)).ravel(), kind="stable")[:n]
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
    cells = strongest(values, HEADS_IN_BARS)
    at = tuple(np.array(cells).T)
    rows, colors = np.arange(len(cells)), meaning.colors(values[at])
    fills = [color if mark else "white" for color, mark in zip(colors, marked[at], strict=True)]
    axes.barh(rows, values[at], height=0.68, color=fills, edgecolor=colors, linewidth=0.9)
    intervals(axes, rows, low=bounds[0][at], high=bounds[1][at])
    axes.axvline(0, color=INK, linewidth=0.7)
    axes.set_yticks(rows, [f"{layer}.{head}" for layer, head in cells])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#e3e3e3", linewidth=0.6)
    axes.set(xlabel=f"{meaning.label}\nwith 95 % bounds", ylabel="layer.head")
    axes.set_title(f"strongest heads (filled: p ≤ {LEVEL})", fontsize=8)


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


def _bound(values: Float[ndarray, "layer head"]) -> float:
    """The largest distance from zero, or one where all is zero."""
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max(initial=0.0))
    return largest if largest > 0 else 1.0
