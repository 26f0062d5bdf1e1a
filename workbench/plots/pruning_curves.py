"""Figures of what is left of a model as heads are removed."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.heads import PruningCurve
from workbench.plots import marks
from workbench.plots.style import (
    BLUE,
    GREY,
    INK,
    LINES,
    OCHRE,
    QUIET,
    RED,
    new_figure,
    styled,
    titled,
)

_COLORS = (BLUE, OCHRE, "#5b8c3a", "#7b4fa0", "#2b8c8c", "#a0522d", RED)
_CHANCE = "random"
_TALLEST = 3.1  # inches for one panel


def draw_pruning_curve(result: PruningCurve, ax: Axes | None = None) -> Figure:
    """A panel for every measure: what is left against the share of heads removed.

    Only the last measure is drawn where `ax` is given.
    """
    title = f"{result.task}: heads removed ({result.removal}), {result.model}"
    with styled():
        if ax is not None:
            draw_measure(ax, result, len(result.measures) - 1)
            return titled(ax, title)
        count = len(result.measures)
        figure = new_figure(width=min(11.0, 1.2 + 3.4 * count), height=_TALLEST + 0.6)
        panels = np.atleast_1d(figure.subplots(1, count))
        for at, axes in enumerate(panels):
            draw_measure(axes, result, at)
        return titled(panels[0], title)


def draw_measure(ax: Axes, result: PruningCurve, at: int) -> None:
    """One measure: a line with its band for every order, named at its end."""
    share = result.share.numpy()
    drawn = result.draw[at].numpy()
    ends: list[tuple[float, str, str]] = []
    colors = iter(_COLORS * (1 + len(result.orders) // len(_COLORS)))
    for row, order in enumerate(result.orders):
        value = result.value[at, row].numpy()
        color = GREY if order == _CHANCE else next(colors)
        band = (result.low[at, row].numpy(), result.high[at, row].numpy())
        if order == _CHANCE and len(drawn):
            band = (drawn.min(0), drawn.max(0))
        ax.fill_between(share, *band, color=color, alpha=0.18, linewidth=0, gid=f"band {order}")
        ax.plot(share, value, color=color, linewidth=1.6, marker="o", markersize=2.6, gid=order)
        ends.append((float(value[-1]), order, color))
    whole = float(result.value[at, 0, 0])
    ax.axhline(whole, color=INK, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    _name(ax, result, at, ends)
    label = f"{marks.words(result.measures[at])} ({result.units[at]})"
    ax.set(xlabel="share of heads removed", ylabel=label)
    ax.set_title("bands: 95 % bounds; random: all draws" if at == 0 else " ", fontsize=8)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.grid(axis="y", color=LINES, linewidth=0.6)
    ax.set_xlim(0, float(share[-1]) * 1.02)


def _name(ax: Axes, result: PruningCurve, at: int, ends: list[tuple[float, str, str]]) -> None:
    """The orders' names where curves that fall leave room, the best on top, in their colours."""
    order = np.argsort(-result.area[at].numpy(), kind="stable")
    lines = [
        (f"{ends[row][1]} ({float(result.area[at, row]):+.2f})", ends[row][2]) for row in order
    ]
    lines.append(("(mean change over the curve)", QUIET))
    for line, (text, color) in enumerate(reversed(lines)):
        ax.annotate(
            text, (0, 0), xycoords="axes fraction", xytext=(5, 4 + 11 * line),
            textcoords="offset points", fontsize=8, color=color,
        )  # fmt: skip
