"""Figures of what patching a place does: maps in either direction, and lists of places."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from workbench.patching import Ranking, Sweep, Sweeps
from workbench.patching.maps import Cell
from workbench.plots import marks
from workbench.plots.style import GREY, LEVEL, OCHRE, new_figure, styled, titled

_SIDES = {
    "position": "token position",
    "role": "role of the token",
    "head": "head",
    "neuron": "neuron",
    "all": "all positions at once",
}
_WAYS = {"denoise": OCHRE, "noise": GREY}


def draw_sweep(result: Sweep, ax: Axes | None = None) -> Figure:
    """A map of layers and places, and beside it the strongest places with their bounds.

    Only the map is drawn where `ax` is given.
    """
    columns = _columns(result)
    with styled():
        if ax is not None:
            _map(ax, result, columns=columns)
            return titled(ax, _title(result))
        map_width = marks.grid_width(columns, len(result.places))
        figure = new_figure(width=map_width + 3.9, height=_height(result))
        left, right = figure.subplots(1, 2, width_ratios=(map_width, 3.9))
        _map(left, result, columns=columns)
        cells, what = _cells([result])
        at = tuple(np.array(cells, dtype=int).reshape(-1, 2).T)
        marks.bars(
            right,
            result.effect.numpy()[at],
            bounds=(result.low.numpy()[at], result.high.numpy()[at]),
            marked=result.p.numpy()[at] <= LEVEL,
            names=[result.named(cell) for cell in cells],
            meaning=_meaning(result),
        )
        right.set_title(what, fontsize=8)
        return titled(left, _title(result))


def draw_sweeps(result: Sweeps, ax: Axes | None = None) -> Figure:
    """The map of each direction side by side, and the strongest places in all of them.

    A row for every metric; its maps share one scale, so that the same depth of colour is the same
    change. Blue is a place that carries the answer: restoring it helps, breaking it hurts. Only
    the first map is drawn where `ax` is given.
    """
    first = result.one()
    columns, title = _columns(first), _title(first)
    with styled():
        if ax is not None:
            _map(ax, first, columns=columns)
            return titled(ax, title)
        ways, widths = len(result.directions), marks.grid_width(columns, len(result.places))
        widths = min(widths, 5.5)
        figure = new_figure(width=ways * widths + 3.4, height=len(result.metrics) * _height(first))
        panels = figure.subplots(
            len(result.metrics), ways + 1, squeeze=False, width_ratios=[*[widths] * ways, 3.4]
        )
        for row, metric in zip(panels, result.metrics, strict=True):
            maps = [result.one(way, metric) for way in result.directions]
            map_each(row[:-1], maps)
            _both(row[-1], maps)
        return titled(panels[0, 0], title)


def map_each(panels: Iterable[Axes], maps: Sequence[Sweep]) -> None:
    """Maps side by side on one scale."""
    bound = max(marks.largest(one.effect.numpy()) for one in maps)
    for axes, one in zip(panels, maps, strict=True):
        _map(axes, one, columns=_columns(one), bound=bound)


def draw_ranking(result: Ranking, ax: Axes | None = None) -> Figure:
    """Bars of the strongest places from the top down, with their bounds."""
    shown = [result.places.index(place) for place in result.strongest(marks.MANY_BARS)]
    meaning = marks.Meaning(
        label=f"change in {marks.words(result.metric)} ({result.unit})",
        negative="it is lower",
        positive="it is higher",
        helps="negative",
    )
    least = f"the {len(shown)} strongest of {len(result.places)}, "
    with styled():
        axes = ax
        if axes is None:
            figure = new_figure(width=7.2, height=marks.bars_height(len(shown)))
            axes = figure.subplots()
        marks.bars(
            axes,
            result.effect.numpy()[shown],
            bounds=(result.low.numpy()[shown], result.high.numpy()[shown]),
            marked=result.p.numpy()[shown] <= LEVEL,
            names=[result.places[at] for at in shown],
            meaning=meaning,
        )
        said = least if len(shown) < len(result.places) else ""
        axes.set_title(
            f"{said}in {result.run} prompts (filled: corrected p ≤ {LEVEL}; blue: lower)",
            fontsize=8,
        )
        return titled(axes, f"{result.task}: {result.what}, {result.model}")


def _map(axes: Axes, result: Sweep, *, columns: marks.Side, bound: float = 0.0) -> None:
    into = "corrupt" if result.direction == "denoise" else "clean"
    value = f"{getattr(result, into).mean():+.2f}".replace("-", "−")
    marks.grid(
        axes,
        result.effect.numpy(),
        (result.p <= LEVEL).numpy(),
        meaning=_meaning(result),
        columns=columns,
        rows=marks.Side("layer", [str(layer) for layer in result.layers]),
        bound=bound,
        title=f"{result.direction}: into {into} prompts ({value} {result.unit})\n"
        f"outlined: corrected p ≤ {LEVEL}",
    )


def _cells(maps: list[Sweep]) -> tuple[list[Cell], str]:
    """The places that are strongest in any of the maps, strongest first, and what they are.

    From layer to layer the residual stream says the same again and again, so that of each of its
    places the strongest layer is enough.
    """
    first = maps[0]
    most = np.max([np.abs(one.effect.numpy()) for one in maps], axis=0)
    filled = f"filled: corrected p ≤ {LEVEL}"
    if not first.stream.startswith("resid") or first.over not in ("position", "role"):
        return marks.strongest(most, marks.MOST_BARS), f"strongest\n{filled}"
    most = np.nan_to_num(most)
    layers, columns = most.argmax(axis=0), np.argsort(-most.max(axis=0), kind="stable")
    cells = [(int(layers[column]), int(column)) for column in columns[: marks.MOST_BARS]]
    return cells, f"each place in the layer where it is strongest\n{filled}"


def _both(axes: Axes, maps: list[Sweep]) -> None:
    """The strongest places, each with a bar for every direction."""
    cells, what = _cells(maps)
    at, height = tuple(np.array(cells, dtype=int).reshape(-1, 2).T), 0.8 / len(maps)
    for number, one in enumerate(maps):
        marks.bar_row(
            axes,
            np.arange(len(cells)) + (number - (len(maps) - 1) / 2) * height,
            one.effect.numpy()[at],
            bounds=(one.low.numpy()[at], one.high.numpy()[at]),
            marked=one.p.numpy()[at] <= LEVEL,
            colors=[_WAYS[one.direction]] * len(cells),
            height=0.86 * height,
        )
    marks.bar_axes(axes, [maps[0].named(cell) for cell in cells], label=_meaning(maps[0]).label)
    axes.set_ylim(axes.get_ylim()[0] + 1, axes.get_ylim()[1])  # room for the legend
    keys = [Patch(color=_WAYS[one.direction], label=one.direction) for one in maps]
    axes.legend(handles=keys, loc="lower center", ncols=2)
    axes.set_title(what, fontsize=8)


def _meaning(result: Sweep) -> marks.Meaning:
    label = f"change in {marks.words(result.metric)} ({result.unit})"
    if result.direction == "denoise":
        return marks.Meaning(label, "hurts the answer", "restores it", helps="positive")
    return marks.Meaning(label, "breaks the answer", "helps it", helps="negative")


def _columns(result: Sweep) -> marks.Side:
    grouped = result.over == "head" and result.stream in ("k", "v", "k_rot")
    return marks.Side("key-value head" if grouped else _SIDES[result.over], result.places)


def _height(result: Sweep) -> float:
    """Inches for the rows of a map, and for labels under it that may be turned."""
    return marks.grid_height(len(result.layers)) + 0.6


def _title(result: Sweep) -> str:
    over = "everywhere" if result.over == "all" else f"by {result.over}"
    return f"{result.task}: {result.stream} patched {over} ({result.source}), {result.model}"
