"""Figures of what sentences' own probabilities say."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.plots import marks
from workbench.plots.style import (
    BLUE,
    GREY,
    INK,
    LEVEL,
    LINES,
    OCHRE,
    RED,
    new_figure,
    styled,
    titled,
)
from workbench.probes import MinimalPairs, RegionSurprisal


def draw_minimal_pairs(result: MinimalPairs, ax: Axes | None = None) -> Figure:
    """A bar for each phenomenon from one half outwards, best on top."""
    order = result.accuracy.argsort(descending=True, stable=True)
    meaning = marks.Meaning("share of pairs right", "prefers the bad", "the good", "positive")
    count = len(order)
    title = f"minimal pairs ({result.task}), {result.model}"
    with styled():
        axes = ax or new_figure(width=6.6, height=max(2.6, 1.4 + 0.17 * count)).subplots()
        value = result.accuracy[order].numpy() - 0.5
        bounds = (result.low[order].numpy() - 0.5, result.high[order].numpy() - 0.5)
        names = [marks.words(result.phenomena[i]) for i in order.tolist()]
        marked = (result.p[order] <= LEVEL).numpy()
        marks.bars(axes, value, bounds=bounds, marked=marked, names=names, meaning=meaning)
        ticks = np.linspace(-0.5, 0.5, 5)
        axes.set_xticks(ticks, [f"{tick + 0.5:g}" for tick in ticks])
        axes.set_xlim(-0.52, 0.52)
        axes.tick_params(axis="y", labelsize=8 if count < 30 else 6)
        axes.set_title(f"filled: not one half, adjusted p ≤ {LEVEL}", fontsize=8)
        return titled(axes, title)


def draw_region_surprisal(result: RegionSurprisal, ax: Axes | None = None) -> Figure:
    """Mean surprisal by region, a line for each condition."""
    title = f"surprisal by region ({result.task}), {result.model}"
    at = np.arange(len(result.regions))
    with styled():
        axes = ax or new_figure(width=7.0, height=3.6).subplots()
        for row, name in enumerate(result.conditions):
            color = (BLUE, RED, OCHRE, GREY)[row % 4]
            bounds = (result.low[row].numpy(), result.high[row].numpy())
            label = marks.words(name)
            marks.curve(axes, at, result.mean[row].numpy(), bounds=bounds, label=label, color=color)
        axes.axhline(0, color=INK, linewidth=0.7)
        axes.set_xticks(at, result.regions, rotation=30, ha="right")
        axes.set(ylabel=f"surprisal ({result.unit})")
        axes.grid(axis="y", color=LINES, linewidth=0.6)
        axes.legend(loc="best")
        return titled(axes, title)
