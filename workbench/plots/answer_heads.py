"""The figure of which heads carry an answer, which write it, and which take over."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from workbench.heads.naming import named
from workbench.plots import marks
from workbench.plots.patching import map_each
from workbench.plots.style import INK, LEVEL, new_figure, styled, titled
from workbench.studies import AnswerHeads


def draw_answer_heads(result: AnswerHeads, ax: Axes | None = None) -> Figure:
    """Both maps on one scale; under them who writes the answer, and who takes over.

    Only who writes is drawn where `ax` is given.
    """
    title = f"{result.task}: which heads carry, write and take over the answer, {result.model}"
    with styled():
        if ax is not None:
            _writers(ax, result)
            return titled(ax, title)
        layers = len(result.writes.effect)
        figure = new_figure(width=8.4, height=marks.grid_height(layers) + 4.6)
        panels = figure.subplots(2, 2, height_ratios=(marks.grid_height(layers), 3.8))
        map_each(panels[0], [result.carries.one(way) for way in result.carries.directions])
        _writers(panels[1, 0], result)
        _takers(panels[1, 1], result)
        for panel, letter in zip(panels.ravel(), "abcd", strict=True):
            panel.set_title(f"{letter}  {panel.get_title(loc='left')}", fontsize=8)
        return titled(panels[0, 0], title)


def _writers(axes: Axes, result: AnswerHeads) -> None:
    """Bars of what heads write themselves, and diamonds of what they do by any way."""
    writes, whole = result.writes, result.carries.one("noise").effect.numpy()
    effect = writes.effect.numpy()
    cells = marks.strongest(np.maximum(np.abs(effect), np.abs(whole)), marks.MOST_BARS)
    at = tuple(np.array(cells, dtype=int).reshape(-1, 2).T)
    meaning = _meaning(writes.metric, writes.unit)
    marks.bars(
        axes, effect[at], bounds=(writes.low.numpy()[at], writes.high.numpy()[at]),
        marked=writes.p.numpy()[at] <= LEVEL, names=[named(cell) for cell in cells],
        meaning=meaning,
    )  # fmt: skip
    _diamonds(axes, whole[at])
    axes.set_title(
        f"bar: what a head writes itself (filled: p ≤ {LEVEL})\n"
        "diamond: its whole effect, noise", fontsize=8,
    )  # fmt: skip


def _takers(axes: Axes, result: AnswerHeads) -> None:
    """Bars of what ablating heads does with others gone, and diamonds of what it does alone."""
    search = result.takes_over
    marks.bars(
        axes, search.then.numpy(), bounds=(search.then_low.numpy(), search.then_high.numpy()),
        marked=search.accepted.numpy(), names=[f"+ {named(head)}" for head in search.heads],
        meaning=_meaning(search.metric, search.unit),
    )  # fmt: skip
    _diamonds(axes, search.alone.numpy())
    gone = named(*search.of) if len(search.of) <= 3 else f"{len(search.of)} writers"
    axes.set_title(
        f"bar: effect with {gone} and those above gone\n"
        "diamond: effect alone (filled: it takes over)", fontsize=8,
    )  # fmt: skip


def _diamonds(axes: Axes, values: Float[ndarray, " row"]) -> None:
    rows = np.arange(len(values))
    axes.plot(values, rows, "D", color=INK, markersize=4.5, gid="diamonds", zorder=4)


def _meaning(metric: str, unit: str) -> marks.Meaning:
    label = f"change in {marks.words(metric)} ({unit})"
    return marks.Meaning(label, "helps the answer", "gets in the way", helps="negative")
