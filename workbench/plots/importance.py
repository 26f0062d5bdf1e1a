"""Figures of how much heads matter, and of where measures of that disagree."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.heads import Importance, ImportanceAgreement, MaskGradients, ShapleyValues
from workbench.plots import marks
from workbench.plots.style import INK, LEVEL, new_figure, styled, titled

_MOST_HEADS = 16


def draw_agreement(result: ImportanceAgreement, ax: Axes | None = None) -> Figure:
    """How alike the measures order the heads, and what each says of the heads that matter.

    Only the map of the correlations is drawn where `ax` is given.
    """
    title = f"{result.task}: measures of importance compared, {result.model}"
    with styled():
        if ax is not None:
            _correlations(ax, result)
            return titled(ax, title)
        size = len(result.method)
        figure = new_figure(width=2 * (1.9 + 0.42 * size), height=3.2 + 0.3 * max(size, 9))
        left, right = figure.subplots(1, 2)
        _correlations(left, result)
        _shares(right, result)
        return titled(left, title)


def draw_importance(result: Importance, ax: Axes | None = None) -> Figure:
    """A layer by head map of the scores, and beside it the strongest heads where they have bounds.

    Only the map is drawn where `ax` is given.
    """
    bounded = isinstance(result, MaskGradients | ShapleyValues)
    unit = f" ({result.unit})" if bounded else ""
    meaning = marks.Meaning(f"{result.way}{unit}", "gets in the way", "matters", helps="positive")
    score = result.score.numpy()
    framed = np.zeros(score.shape, dtype=bool)
    if isinstance(result, ShapleyValues):
        framed = np.nan_to_num(result.p.numpy(), nan=1.0) <= LEVEL
    told = getattr(result, "task", ""), getattr(result, "model", "")
    title = f"{told[0]}: heads by {result.way}, {told[1]}"
    grey = (
        "not among the players" if isinstance(result, ShapleyValues) else "removed from the model"
    )
    caption = f"every head (outlined: corrected p ≤ {LEVEL})" if framed.any() else "every head"
    with styled():
        axes = ax
        if axes is None:
            width = 7.2 if bounded else 5.4
            figure = new_figure(width=width, height=marks.grid_height(len(score)))
            panels = figure.subplots(1, 2 if bounded else 1, squeeze=False)[0]
            axes = panels[0]
            if bounded:
                _bars(panels[1], result, meaning=meaning)
        marks.grid(axes, score, framed, meaning=meaning, title=caption, grey=grey)
        return titled(axes, title)


def _bars(axes: Axes, result: MaskGradients | ShapleyValues, *, meaning: marks.Meaning) -> None:
    """The strongest heads that have a score, with their bounds; filled where those leave out 0."""
    score = result.score.numpy()
    cells = marks.strongest(score, min(marks.MOST_BARS, int((~np.isnan(score)).sum())))
    at = tuple(np.array(cells, dtype=int).reshape(-1, 2).T)
    low, high = result.low.numpy()[at], result.high.numpy()[at]
    marks.bars(
        axes,
        score[at],
        bounds=(low, high),
        marked=low * high > 0,
        names=[f"{layer}.{head}" for layer, head in cells],
        meaning=meaning,
    )
    axes.set(ylabel="layer.head")
    axes.set_title("strongest heads (filled: bounds leave out 0)", fontsize=8)


def _correlations(axes: Axes, result: ImportanceAgreement) -> None:
    """Rank correlations as a map, with their numbers."""
    size = len(result.method)
    values = result.correlation.numpy()
    names = _numbered(result)
    marks.grid(
        axes,
        values,
        np.zeros(values.shape, dtype=bool),
        meaning=marks.Meaning(
            "rank correlation of two measures", "opposite order", "same order", helps="positive"
        ),
        columns=marks.Side("", [name.split()[0] for name in names]),
        rows=marks.Side("", names),
        bound=1.0,
        title=f"do they order heads alike?\nabove: correlation; below: overlap of the first "
        f"{result.top}, %",
        grey="",
    )
    axes.set_xticks(range(size), [name.split()[0] for name in names])
    axes.set_yticks(range(size), names)
    axes.invert_yaxis()
    for row, column in np.ndindex(size, size):
        value, shared = values[row, column], float(result.overlap[row, column])
        said = "–" if np.isnan(value) else f"{value:+.2f}".replace("-", "−")
        if column < row:
            said = "–" if np.isnan(shared) else f"{100 * shared:.0f}"
        text = said if column != row else ""
        dark = abs(np.nan_to_num(value)) > 0.6
        axes.text(
            column, row, text, ha="center", va="center", fontsize=6.5,
            color="white" if dark else INK,
        )  # fmt: skip


def _shares(axes: Axes, result: ImportanceAgreement) -> None:
    """What each measure says of the heads that any of them makes much of."""
    share = result.share.numpy()
    most = np.nan_to_num(np.abs(share), nan=-1.0).max(axis=0)
    most[most < 0] = np.nan  # no measure has a score of it
    cells = marks.strongest(most, _MOST_HEADS)
    mean = {cell: float(np.nanmean(share[(slice(None), *cell)])) for cell in cells}
    cells.sort(key=lambda cell: -mean[cell])
    values = np.array([share[(slice(None), *cell)] for cell in cells])
    ranks = np.array([result.rank.numpy()[(slice(None), *cell)] for cell in cells])
    marks.grid(
        axes,
        values,
        np.nan_to_num(ranks, nan=np.inf) <= result.top,
        meaning=marks.Meaning(
            "score, as a part of the measure's largest", "gets in the way", "matters",
            helps="positive",
        ),
        columns=marks.Side("measure, numbered as on the left"),
        rows=marks.Side("layer.head", [f"{layer}.{head}" for layer, head in cells]),
        bound=1.0,
        title=f"the heads that any of them makes much of\noutlined: among its first {result.top}",
        grey="no score",
    )  # fmt: skip
    axes.set_xticks(range(len(values[0])), [name.split()[0] for name in _numbered(result)])
    axes.set_yticks(range(len(cells)), [f"{layer}.{head}" for layer, head in cells])
    axes.invert_yaxis()


def _numbered(result: ImportanceAgreement) -> list[str]:
    """The measures' names with a number before each, by which the columns go."""
    return [f"{place + 1} {name}" for place, name in enumerate(result.method)]
