"""Figures of what a model uses: erasure by layer, concepts, steering, transfer."""

import textwrap

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
from workbench.probes import Amnesia, Completeness, SteeringCurve, Tcav, Transfer, Use


def draw_amnesia(result: Amnesia, ax: Axes | None = None) -> Figure:
    """Accuracy by layer, and below it what erasing costs beside random changes.

    Only the costs are drawn where `ax` is given.
    """
    title = f"{result.task}: decodable, and used? {result.model}"
    with styled():
        if ax is not None:
            _costs(ax, result)
            return titled(ax, title)
        figure = new_figure(width=7.0, height=5.4)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.3))
        layers = np.array(result.layers)
        bounds = (result.accuracy_low.numpy(), result.accuracy_high.numpy())
        marks.curve(upper, layers, result.accuracy.numpy(), bounds=bounds, label="probe")
        after = result.accuracy_after
        upper.plot(layers, after, color=OCHRE, linewidth=1.4, label="probe after erasing")
        upper.axhline(result.chance, color=QUIET, linestyle=":", label="commonest class")
        upper.set(ylabel="held-out accuracy", ylim=(0, 1.03))
        upper.legend(loc="lower right", ncols=2)
        _costs(lower, result)
        return titled(upper, title)


def _costs(axes: Axes, result: Amnesia) -> None:
    layers = np.array(result.layers)
    band = np.quantile(result.placebo.numpy(), (0.025, 0.975), axis=1)
    axes.fill_between(layers, *band, color=GREY, alpha=0.35, linewidth=0, label="95 % of random")
    axes.axhline(0, color=INK, linewidth=0.7)
    bounds = (result.low.numpy(), result.high.numpy())
    marks.curve(axes, layers, result.effect.numpy(), bounds=bounds, label="erased")
    _points(axes, layers, result.effect.numpy(), (result.p <= LEVEL).numpy(), BLUE)
    back = result.given_back
    axes.plot(layers, back, color=OCHRE, linewidth=1.2, linestyle="--", label="label given back")
    axes.set(xlabel=f"layer ({result.stream})")
    axes.set_ylabel(f"change in {marks.words(result.metric)}\n({result.unit})")
    axes.set_title(f"filled: more than random changes as large, corrected p ≤ {LEVEL}", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, marked: np.ndarray, color: str) -> None:
    """Dots, filled where marked."""
    fills = np.where(marked, color, "white")
    axes.scatter(x, y, s=16, c=fills, edgecolors=color, linewidths=0.9, zorder=4)


def draw_tcav(result: Tcav, ax: Axes | None = None) -> Figure:
    """Sensitivity by layer beside random concepts, and below it the TCAV score.

    Only the sensitivity is drawn where `ax` is given.
    """
    title = f"{result.concept} and {result.task}, {result.model}"
    with styled():
        if ax is not None:
            _sensitivity(ax, result)
            return titled(ax, title)
        figure = new_figure(width=7.0, height=5.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
        _sensitivity(upper, result)
        upper.set(xlabel="")
        layers = np.array(result.layers)
        lower.plot(layers, result.score, color=BLUE, linewidth=1.8, label="TCAV score")
        lower.plot(layers, result.accuracy, color=OCHRE, label="classifier, held out")
        lower.axhline(0.5, color=QUIET, linestyle=":")
        lower.set(xlabel=f"layer ({result.stream})", ylabel="share", ylim=(-0.03, 1.03))
        lower.legend(loc="best")
        return titled(upper, title)


def _sensitivity(axes: Axes, result: Tcav) -> None:
    layers = np.array(result.layers)
    band = np.quantile(result.random.numpy(), (0.025, 0.975), axis=1)
    axes.fill_between(
        layers,
        *band,
        color=GREY,
        alpha=0.35,
        linewidth=0,
        label="95 % of random concepts, by layer",
    )
    axes.axhline(0, color=INK, linewidth=0.7)
    bounds = (result.low.numpy(), result.high.numpy())
    marks.curve(axes, layers, result.sensitivity.numpy(), bounds=bounds, label=result.concept)
    _points(axes, layers, result.sensitivity.numpy(), (result.p <= LEVEL).numpy(), BLUE)
    axes.set(xlabel=f"layer ({result.stream})")
    axes.set_ylabel(f"derivative of {marks.words(result.metric)}\n({result.unit} per unit length)")
    axes.set_title(f"filled: more than random concepts, corrected p ≤ {LEVEL}", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")


def draw_steering(result: SteeringCurve, ax: Axes | None = None) -> Figure:
    """Effect and loss by strength, and what is written beside them.

    Only the effect is drawn where `ax` is given.
    """
    title = f"{result.vector} at {result.site}: {result.task}, {result.model}"
    with styled():
        if ax is not None:
            _steered(ax, result)
            ax.set(xlabel="strength")
            return titled(ax, title)
        figure = new_figure(width=9.0 if result.starts else 5.0, height=5.2)
        columns = 2 if result.starts else 1
        panels = figure.subplots(2, columns, squeeze=False, width_ratios=(1, 1.15)[:columns])
        _steered(panels[0, 0], result)
        x = result.strengths.numpy()
        bounds = (result.loss_low.numpy(), result.loss_high.numpy())
        loss = panels[1, 0]
        marks.curve(loss, x, result.loss.numpy(), bounds=bounds, label="running text", color=RED)
        loss.axhline(0, color=INK, linewidth=0.7)
        loss.set(xlabel="strength", ylabel="change in loss\n(nats per token)")
        loss.legend(loc="best")
        if result.starts:
            _texts(panels[0, 1], panels[1, 1], result)
        return titled(panels[0, 0], title)


def _steered(axes: Axes, result: SteeringCurve) -> None:
    x = result.strengths.numpy()
    band = result.placebo.numpy()
    label = f"{len(band)} random vectors as long"
    axes.fill_between(x, band.min(0), band.max(0), color=GREY, alpha=0.35, linewidth=0, label=label)
    axes.axhline(0, color=INK, linewidth=0.7)
    bounds = (result.low.numpy(), result.high.numpy())
    marks.curve(axes, x, result.effect.numpy(), bounds=bounds, label="steered")
    axes.set_ylabel(f"change in {marks.words(result.metric)}\n({result.unit})")
    axes.legend(loc="best")


def _texts(upper: Axes, lower: Axes, result: SteeringCurve) -> None:
    """What is written after the first start, the strongest push on top."""
    upper.axis("off")
    lower.axis("off")
    lines = [f"“{result.starts[0]} …”", ""]
    for at in np.argsort(-result.strengths.numpy()):
        text = " ".join(result.texts[at][0].split())
        shown = textwrap.wrap(text, 52, max_lines=2, placeholder=" …") or ["(nothing)"]
        lines.append(f"{float(result.strengths[at]):+g}:  {shown[0]}")
        lines += [f"       {more}" for more in shown[1:]]
    upper.text(0, 1, "\n".join(lines), va="top", fontsize=7.5, linespacing=1.35)


def draw_transfer(result: Transfer, ax: Axes | None = None) -> Figure:
    """A matrix of trained by tested sets; each cell has its accuracy and bounds."""
    count = len(result.sets)
    title = f"trained on one set, tested on another: layer {result.layer}, {result.model}"
    with styled():
        axes = ax
        if axes is None:
            size = 2.2 + 1.0 * count
            axes = new_figure(width=size + 0.8, height=size).subplots()
        value = result.accuracy.numpy()
        axes.imshow(value - result.chance.numpy(), cmap="RdBu", vmin=-0.5, vmax=0.5)
        for i in range(count):
            for j in range(count):
                low, high = float(result.low[i, j]), float(result.high[i, j])
                strong = abs(value[i, j] - float(result.chance[j])) > 0.32
                text = f"{value[i, j]:.2f}\n[{low:.2f}, {high:.2f}]"
                color = "white" if strong else INK
                axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=color)
        axes.set_xticks(range(count), result.sets, rotation=30, ha="right")
        axes.set_yticks(range(count), result.sets)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="tested on", ylabel="trained on")
        axes.set_title("blue: above the commonest class; diagonal: held out", fontsize=8)
        return titled(axes, title)


def draw_use(result: Use, ax: Axes | None = None) -> Figure:
    """What the change does, among what random ones do."""
    title = f"{result.change} at {result.site}: {result.task}, {result.model}"
    with styled():
        axes = ax or new_figure(width=6.4, height=3.2).subplots()
        axes.hist(result.placebo.numpy(), bins=24, color=GREY, label="random directions")
        axes.axvline(result.effect, color=BLUE, linewidth=2, label=f"seen (p = {result.p:.3f})")
        axes.axvspan(result.low, result.high, color=BLUE, alpha=0.2, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.7)
        axes.set(xlabel=f"change in {marks.words(result.metric)} ({result.unit})")
        axes.set(ylabel="how many")
        axes.grid(axis="y", color=LINES, linewidth=0.6)
        axes.legend(loc="best")
        return titled(axes, title)


def draw_completeness(result: Completeness, ax: Axes | None = None) -> Figure:
    """What each concept contributes, one after the other, up to what all of them leave."""
    order = result.shapley.argsort(descending=True, stable=True).tolist()
    parts = result.shapley[order].numpy()
    ends, count = np.cumsum(parts), len(order)
    names = [f"{result.concepts[i]}  {part:+.2f}" for i, part in zip(order, parts, strict=True)]
    colors = [BLUE if part >= 0 else RED for part in parts]
    title = f"concepts at {result.site}: {result.task}, {result.model}"
    with styled():
        axes = ax or new_figure(width=6.4, height=marks.bars_height(count + 1)).subplots()
        axes.barh(np.arange(count), parts, left=ends - parts, color=colors, height=0.7)
        axes.barh(count, result.completeness, color=GREY, height=0.7)
        axes.axvline(0, color=INK, linewidth=0.7)
        axes.axvline(1, color=INK, linewidth=0.9, linestyle=":")
        axes.set_yticks(range(count + 1), [*names, f"all of them  {result.completeness:.2f}"])
        axes.invert_yaxis()
        axes.grid(axis="x", color=LINES, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel(f"share of {marks.words(result.metric)} that is left")
        axes.set_title(
            f"0: only the mean gets through ({result.empty:+.2f} {result.unit}), "
            f"1: everything ({result.whole:+.2f})", fontsize=8,
        )  # fmt: skip
        return titled(axes, title)
