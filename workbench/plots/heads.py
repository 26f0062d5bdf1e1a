"""Figures of what ablating heads costs."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.heads import HeadEffects
from workbench.plots import marks
from workbench.plots.style import LEVEL, new_figure, styled, titled


def draw_head_effects(result: HeadEffects, ax: Axes | None = None) -> Figure:
    """A layer by head map, and beside it the strongest heads with their bounds.

    Only the map is drawn where `ax` is given.
    """
    meaning = marks.Meaning(
        label=f"change in {marks.words(result.metric)} ({result.unit})",
        negative="the head helps",
        positive="gets in the way",
        helps="negative",
    )
    effect, marked = result.effect.numpy(), (result.p <= LEVEL).numpy()
    title = f"{result.task} without one head ({result.ablation} ablation), {result.model}"
    with styled():
        if ax is not None:
            marks.grid(ax, effect, marked, meaning=meaning)
            return titled(ax, title)
        figure = new_figure(width=7.2, height=marks.grid_height(len(effect)))
        left, right = figure.subplots(1, 2, width_ratios=(0.9, 1))
        marks.grid(left, effect, marked, meaning=meaning)
        bounds = (result.low.numpy(), result.high.numpy())
        marks.head_bars(right, effect, bounds=bounds, marked=marked, meaning=meaning)
        return titled(left, title)
