"""Figures of what is left of a model as heads are removed."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.heads import PruningCurve, PruningStudy
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


def draw_pruning_study(result: PruningStudy, ax: Axes | None = None) -> Figure:
    """The curves with the share that goes, and below them what the smaller model has left.

    Only the measure that decides is drawn where `ax` is given.
    """
    found = result.curve
    title = f"{result.task}: {len(result.removed)} heads to remove, {result.model}"
    with styled():
        if ax is not None:
            draw_measure(ax, found, found.measures.index(result.measure))
            return titled(ax, title)
        count = len(found.measures)
        figure = new_figure(width=min(11.0, 1.2 + 3.4 * count), height=_TALLEST + 2.6)
        grid = figure.add_gridspec(2, count, height_ratios=(_TALLEST, 1.6))
        for at in range(count):
            axes = figure.add_subplot(grid[0, at])
            draw_measure(axes, found, at)
            share = len(result.removed) * float(found.share[-1] / found.removed[-1])
            axes.axvline(share, color=INK, linewidth=0.9)
        _left(figure.add_subplot(grid[1, :]), result)
        return titled(figure.axes[0], title)


def _left(ax: Axes, result: PruningStudy) -> None:
    """What is left of parameters, operations and time, as shares."""
    costs = result.costs
    spread = {
        "parameters": (float(costs.parameters[1] / costs.parameters[0]),) * 3,
        f"operations ({costs.tokens} tokens)": (float(costs.flops[1] / costs.flops[0]),) * 3,
    }
    for what in ("prefill", "decode"):
        for size in costs.batch_size:
            spread[f"{what}, batch {size}"] = costs.ratio(what, size)
    names = list(spread)[::-1]
    middle, low, high = (np.array([spread[name][at] for name in names]) for at in range(3))
    ax.barh(names, middle, color=BLUE, height=0.6, xerr=(middle - low, high - middle))
    ax.axvline(1.0, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    for row, value in enumerate(middle):
        ax.annotate(f"{value:.1%}", (0, row), xytext=(4, -3), textcoords="offset points",
                    color="white", fontsize=8)  # fmt: skip
    ax.set(xlim=(0, max(1.05, float(high.max()) * 1.02)), xlabel="left, as a share of before")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    rounds = costs.prefill.shape[-1]
    ax.set_title(
        f"after removing {len(result.removed)} heads in the order {result.order} "
        f"(time: medians of {rounds} rounds, smallest and largest)", fontsize=8,
    )  # fmt: skip


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
