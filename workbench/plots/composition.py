"""The figure of who reads what a neuron writes."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from workbench.neurons import Composition
from workbench.neurons.composition import READS
from workbench.plots import marks
from workbench.plots.neurons import bars
from workbench.plots.style import BLUE, QUIET, RED, new_figure, styled, titled


def draw_composition(result: Composition, ax: Axes | None = None) -> Figure:
    """How much every later head reads of the neuron, and the neurons whose input is closest to it.

    Only the heads are drawn where `ax` is given.
    """
    title = f"Who reads neuron {result.neuron}, {result.model}"
    with styled():
        if ax is not None:
            _heads(ax, result)
            return titled(ax, title)
        figure = new_figure(width=8.4, height=marks.grid_height(result.heads.shape[1]))
        left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
        _heads(left, result)
        cosines = result.cosine.numpy()
        colors = [BLUE if value >= 0 else RED for value in cosines]
        bars(right, [str(one) for one in result.readers], cosines, colors=colors)
        right.set(xlabel="cosine of what it writes with what they read")
        right.set_title("closest later neurons" if len(cosines) else "no neuron is later")
        return titled(left, title)


def _heads(ax: Axes, result: Composition) -> None:
    """A map of layers and heads, those that read it as queries, keys and values side by side."""
    maps = [_there(one) for one in result.heads.numpy()]
    values = np.concatenate(maps, axis=1)
    reach = marks.largest(values - 1)  # white is what a random direction gives
    image = ax.imshow(
        values, cmap="RdBu", vmin=1 - reach, vmax=1 + reach, aspect="auto", origin="lower",
        interpolation="nearest",
    )  # fmt: skip
    image.cmap.set_bad(marks.GONE)
    ends = np.cumsum([one.shape[1] for one in maps])
    for end in ends[:-1]:
        ax.axvline(end - 0.5, color=QUIET, linewidth=0.9)
    labels = [(end - one.shape[1], one.shape[1]) for end, one in zip(ends, maps, strict=True)]
    ax.set(
        xticks=[start + (count - 1) / 2 for start, count in labels],
        xticklabels=[
            f"{name} of 0–{count - 1}" for name, (_, count) in zip(READS, labels, strict=True)
        ],
        xlabel="heads", ylabel="layer",
    )  # fmt: skip
    ax.tick_params(axis="x", length=0)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[:].set_visible(False)
    found = bool(np.isfinite(values).any())
    ax.set_title("heads (grey: not later)" if found else "no head is later")
    bar = ax.figure.colorbar(image, ax=ax, location="bottom", aspect=28, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("how much of it they read; 1: as of a random direction", fontsize=8)


def _there(values: Float[ndarray, "layer head"]) -> Float[ndarray, "layer there"]:
    """Without the columns of heads that no layer has; all of them where no layer is later."""
    some = np.isfinite(values).any(axis=0)
    return values[:, some] if some.any() else values
