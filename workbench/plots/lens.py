"""Figures of what can be read off the residual stream, and who wrote it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.lens import DirectAttribution, LogitLens
from workbench.plots import marks
from workbench.plots.style import (
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


def draw_logit_lens(result: LogitLens, ax: Axes | None = None) -> Figure:
    """Log p(answer) by depth with its bounds and the foil's, and below it the answer's rank.

    Only the log-probabilities are drawn where `ax` is given.
    """
    title = f"{result.task} read after every layer (logit lens), {result.model}"
    with styled():
        if ax is not None:
            _logprobs(ax, result)
            ax.set(xlabel="depth (0: the embedding)")
            return titled(ax, title)
        figure = new_figure(width=7.0, height=5.0)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
        _logprobs(upper, result)
        _ranks(lower, result)
        lower.set(xlabel="depth (0: the embedding)")
        return titled(upper, title)


def _logprobs(axes: Axes, result: LogitLens) -> None:
    depth = np.arange(len(result.logprob))
    bounds = (result.low.numpy(), result.high.numpy())
    marks.curve(axes, depth, result.logprob.numpy(), bounds=bounds, label="answer")
    foil = result.foil.mean(dim=1)
    axes.plot(depth, foil, color=RED, linewidth=1.4, linestyle="--", label="foil")
    axes.set(ylabel=f"mean log-probability ({result.unit})", xlim=(0, depth[-1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")


def _ranks(axes: Axes, result: LogitLens) -> None:
    """Ranks are counted from 1 here, for a logarithmic axis with the best on top."""
    depth, places = np.arange(len(result.rank)), result.rank.numpy() + 1
    axes.plot(depth, places, color=QUIET, linewidth=0.7, alpha=0.35)
    axes.plot(depth, np.median(places, axis=1), color=INK, linewidth=1.8, label="median prompt")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.minorticks_off()
    axes.invert_yaxis()
    axes.grid(axis="y", color=LINES, linewidth=0.6)
    axes.set(ylabel="rank of the answer\n(1: the model's choice)")
    axes.legend(loc="best")


def draw_direct_attribution(result: DirectAttribution, ax: Axes | None = None) -> Figure:
    """A layer by head map, each layer's attention and MLP beside it, and the strongest heads.

    Only the map is drawn where `ax` is given.
    """
    meaning = marks.Meaning(
        label=f"written into the logit diff ({result.unit})",
        negative="against answer",
        positive="for answer",
        helps="positive",
    )
    head, marked = result.effect.numpy(), (result.p <= LEVEL).numpy()
    title = f"{result.task}: who wrote the logit difference, {result.model}"
    with styled():
        if ax is not None:
            marks.grid(ax, head, marked, meaning=meaning)
            return titled(ax, title)
        figure = new_figure(width=8.0, height=marks.grid_height(len(head)))
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 0.75, 1.1))
        marks.grid(left, head, marked, meaning=meaning)
        _layers(middle, result)
        bounds = (result.low.numpy(), result.high.numpy())
        marks.head_bars(right, head, bounds=bounds, marked=marked, meaning=meaning)
        return titled(left, title)


def _layers(axes: Axes, result: DirectAttribution) -> None:
    """Bars of every layer, on the same rows as the map."""
    layer = np.arange(len(result.mlp))
    axes.barh(layer + 0.2, result.attention, height=0.38, color=GREY, label="attention")
    axes.barh(layer - 0.2, result.mlp, height=0.38, color=OCHRE, label="MLP")
    bounds = {"low": result.attention_low.numpy(), "high": result.attention_high.numpy()}
    marks.intervals(axes, layer + 0.2, **bounds)
    bounds = {"low": result.mlp_low.numpy(), "high": result.mlp_high.numpy()}
    marks.intervals(axes, layer - 0.2, **bounds)
    axes.axvline(0, color=INK, linewidth=0.7)
    axes.set_title("whole layers", fontsize=8)
    axes.set(xlabel=f"wrote ({result.unit})", ylim=(-0.5, len(layer) - 0.5))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, steps=[1, 2, 5, 10]))
    axes.grid(axis="x", color=LINES, linewidth=0.6)
    axes.legend(loc="best")
