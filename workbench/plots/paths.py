"""Figures of what senders say to receivers."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.patching import PathEffects
from workbench.plots import marks
from workbench.plots.style import LEVEL, new_figure, styled, titled


def draw_path_effects(result: PathEffects, ax: Axes | None = None) -> Figure:
    """A layer by head map of senders, the MLPs beside it on the same rows, the strongest heads.

    Only the map is drawn where `ax` is given.
    """
    effect, marked = result.effect.numpy(), (result.p <= LEVEL).numpy()
    meaning = _meaning(result)
    title = f"{result.task}: who speaks to {result.to}, {result.model}"
    way = f"{result.direction}, {result.between} between"
    heads = f"heads ({way})\noutlined: corrected p ≤ {LEVEL}"
    with styled():
        if ax is not None:
            marks.grid(ax, effect, marked, meaning=meaning, title=heads)
            return titled(ax, title)
        figure = new_figure(width=8.4, height=marks.grid_height(len(effect)))
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 0.75, 1.1))
        marks.grid(left, effect, marked, meaning=meaning, title=heads)
        marks.bar_row(
            middle,
            np.arange(len(effect)),
            result.mlp.numpy(),
            bounds=(result.mlp_low.numpy(), result.mlp_high.numpy()),
            marked=(result.mlp_p <= LEVEL).numpy(),
            colors=meaning.colors(result.mlp.numpy()),
        )
        marks.layer_axes(middle, len(effect), label=f"change ({result.unit})")
        middle.set_title(f"MLPs\nfilled: corrected p ≤ {LEVEL}", fontsize=8)
        bounds = (result.low.numpy(), result.high.numpy())
        marks.head_bars(right, effect, bounds=bounds, marked=marked, meaning=meaning)
        return titled(left, title)


def _meaning(result: PathEffects) -> marks.Meaning:
    label = f"change in {marks.words(result.metric)} ({result.unit})"
    if result.direction == "noise":
        return marks.Meaning(label, "the path helps", "gets in the way", helps="negative")
    return marks.Meaning(label, "gets in the way", "the path helps", helps="positive")
