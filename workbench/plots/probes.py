"""Figures of what can be read off each layer, beside what that has to be held against."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.plots import marks
from workbench.plots.style import (
    BLUE,
    GREY,
    INK,
    LEVEL,
    LINES,
    OCHRE,
    QUIET,
    RED,
    new_figure,
    styled,
    titled,
)
from workbench.probes import ProbeStudy

_OTHERS = ("#5b8c5a", "#8d6cab", "#b0764a", "#4d8f9c")


def draw_probe_study(result: ProbeStudy, ax: Axes | None = None) -> Figure:
    """Accuracy by layer beside its controls, and below it selectivity and description length.

    Only the accuracies are drawn where `ax` is given.
    """
    title = f"{result.task}: what a linear probe reads, {result.model}"
    with styled():
        if ax is not None:
            _accuracy(ax, result)
            ax.set(xlabel="layer")
            return titled(ax, title)
        pushed = result.steer is not None
        figure = new_figure(width=7.4, height=7.6 if pushed else 6.2)
        ratios = (2.1, 1, 1, 1)[: 4 if pushed else 3]
        panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
        upper = panels[0]
        _accuracy(upper, result)
        _selectivity(panels[1], result)
        _lengths(panels[2], result)
        if pushed:
            _steered(panels[3], result)
        panels[-1].set(xlabel=f"layer ({result.what})")
        return titled(upper, title)


def _accuracy(axes: Axes, result: ProbeStudy) -> None:
    x, y = np.array(result.layers), result.accuracy.numpy()
    bounds = (result.low.numpy(), result.high.numpy())
    marks.curve(axes, x, y, bounds=bounds, label="task")
    sure = result.p.numpy() <= LEVEL
    axes.plot(x[sure], y[sure], "o", color=BLUE, markersize=3.5, label="corrected p ≤ 0.05")
    if result.control is not None:
        assert result.control_low is not None and result.control_high is not None
        bounds = (result.control_low.numpy(), result.control_high.numpy())
        marks.curve(axes, x, result.control.numpy(), bounds=bounds, label="control", color=RED)
    for row, name in enumerate(result.baselines):
        color = _OTHERS[row % len(_OTHERS)]
        axes.plot(x, result.baseline[row], "--", color=color, linewidth=1.2, label=name)
    axes.plot(x, result.random_direction, color=OCHRE, linewidth=1.2, label="random direction")
    rates = result.shuffled.numpy()
    axes.fill_between(x, rates.min(1), rates.max(1), color=GREY, alpha=0.25, linewidth=0)
    axes.plot(x, rates.mean(1), color=GREY, linewidth=1.2, label="shuffled labels")
    axes.axhline(result.majority, color=INK, linewidth=0.9, linestyle=":", label="majority")
    _place(axes, x)
    axes.set(ylabel="share right, held out")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _selectivity(axes: Axes, result: ProbeStudy) -> None:
    x = np.array(result.layers)
    axes.axhline(0, color=INK, linewidth=0.7)
    if result.selectivity is None:
        bounds = (result.low.numpy() - result.majority, result.high.numpy() - result.majority)
        lead, label = result.accuracy.numpy() - result.majority, "lead over majority"
    else:
        assert result.selectivity_low is not None and result.selectivity_high is not None
        bounds = (result.selectivity_low.numpy(), result.selectivity_high.numpy())
        lead, label = result.selectivity.numpy(), "selectivity\n(task less control)"
    marks.curve(axes, x, lead, bounds=bounds, label=label)
    _place(axes, x)
    axes.set(ylabel=label)


def _lengths(axes: Axes, result: ProbeStudy) -> None:
    x = np.array(result.layers)
    axes.plot(x, result.compression, color=BLUE, linewidth=1.6, label="task")
    if result.control_compression is not None:
        axes.plot(x, result.control_compression, color=RED, linewidth=1.4, label="control")
    axes.plot(x, result.shuffled_compression, color=GREY, linewidth=1.2, label="shuffled")
    axes.axhline(1, color=INK, linewidth=0.9, linestyle=":", label="uniform code")
    _place(axes, x)
    axes.set(ylabel="times shorter\n(online code)")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _steered(axes: Axes, result: ProbeStudy) -> None:
    assert result.steer is not None and result.steer_placebo is not None
    assert result.steer_low is not None and result.steer_high is not None
    assert result.steer_p is not None
    there = result.steer.isfinite().numpy()
    x, y = np.array(result.layers)[there], result.steer.numpy()[there]
    band = result.steer_placebo.numpy()[there]
    label = f"{band.shape[1]} random pushes"
    axes.fill_between(x, band.min(1), band.max(1), color=GREY, alpha=0.35, linewidth=0, label=label)
    axes.axhline(0, color=INK, linewidth=0.7)
    bounds = (result.steer_low.numpy()[there], result.steer_high.numpy()[there])
    marks.curve(axes, x, y, bounds=bounds, label="pushed along it")
    sure = result.steer_p.numpy()[there] <= LEVEL
    fills = np.where(sure, BLUE, "white")
    axes.scatter(x, y, s=14, c=fills, edgecolors=BLUE, linewidths=0.9, zorder=4)
    _place(axes, np.array(result.layers))
    axes.set(ylabel="push changes\n" + result.steered.replace(" on ", "\non ", 1))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _place(axes: Axes, x: np.ndarray) -> None:
    axes.grid(axis="y", color=LINES, linewidth=0.6)
    axes.tick_params(color=QUIET)
    if len(x) > 1:
        axes.set_xlim(x.min(), x.max())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
