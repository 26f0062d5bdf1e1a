"""Figures of what kind each head is."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from workbench.heads import HeadTypes
from workbench.plots.style import INK, LINES, new_figure, styled, titled

_COLORS = {
    "previous token": "#1f77b4", "duplicate token": "#7fb8e0", "induction": "#d62728",
    "first token": "#d5d5d5", "fixed offset": "#8c8c8c", "fixed position": "#bcbd22",
    "copying": "#2ca02c", "copy-suppressing": "#8a2be2",
    "positive OV": "#a8dba0", "negative OV": "#cdb3ea",
    "name mover": "#ff9c1a", "negative name mover": "#7a3b00", "S-inhibition": "#e85fb2",
    "successor": "#17becf",
}  # fmt: skip
_ACROSS = 5


def draw_head_types(result: HeadTypes, ax: Axes | None = None) -> Figure:
    """Every head in the colours of its types, and a map of each type with its heads outlined.

    Only the first map is drawn where `ax` is given.
    """
    title = f"Types of heads, {result.model} ({result.task})"
    with styled():
        if ax is not None:
            _every_type(ax, result)
            _legend(ax, result, columns=2, anchor=(0.0, -0.22))
            return titled(ax, title)
        rows = -(-len(result.types) // _ACROSS)
        each = 0.7 + 0.04 * result.effect.shape[1]
        figure = new_figure(width=9.5, height=each * rows + 2.8)
        parts: Any = figure.subfigures(2, 1, height_ratios=(2.8, each * rows))
        upper, lower = parts
        left, right = upper.subplots(1, 2, width_ratios=(1, 1))
        _every_type(left, result)
        right.set_axis_off()
        _legend(right, result, columns=2, anchor=(0.0, 1.0))
        panels = lower.subplots(rows, _ACROSS, squeeze=False).ravel()
        for at, panel in enumerate(panels):
            if at < len(result.types):
                _one_type(panel, result, at)
            else:
                panel.set_axis_off()
        return titled(left, title)


def _every_type(axes: Axes, result: HeadTypes) -> None:
    """A cell for each head, split into a strip for each of its types."""
    layers, width = result.effect.shape[1:]
    strips, colors = [], []
    of: dict[tuple[int, int], list[str]] = {}
    for type, heads in result.named().items():
        for head in heads:
            of.setdefault(head, []).append(type)
    for (layer, head), types in of.items():
        for at, type in enumerate(types):
            share = 0.92 / len(types)
            strips.append(Rectangle((head - 0.46 + at * share, layer - 0.46), share, 0.92))
            colors.append(_COLORS[type])
    axes.add_collection(PatchCollection(strips, facecolor=colors, edgecolor="none", gid="types"))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(-0.5, layers - 0.5), xlabel="head", ylabel="layer")
    _gone(axes, result)
    removed = " (hatched: removed from the model)" if bool(result.gone.any()) else ""
    axes.set_title(f"every head in the colours of its types{removed}", fontsize=8)
    axes.grid(color=LINES, linewidth=0.4)
    _counted(axes)


def _one_type(axes: Axes, result: HeadTypes, at: int) -> None:
    """How far each head's score is beyond chance, the named heads framed."""
    effect = result.effect[at].numpy()
    most = max(float(result.threshold[at]), float(np.nanmax(effect, initial=0.0)))
    image = axes.imshow(
        effect, cmap="Greys", vmin=0, vmax=most, aspect="auto", origin="lower",
        interpolation="nearest",
    )  # fmt: skip
    image.cmap.set_bad("#f3e9dc")
    _gone(axes, result)
    heads = result.of(result.types[at])
    frames = [Rectangle((head - 0.5, layer - 0.5), 1, 1) for layer, head in heads]
    color = _COLORS[result.types[at]]
    dark = INK if color in ("#d5d5d5", "#a8dba0", "#cdb3ea") else color
    axes.add_collection(
        PatchCollection(frames, facecolor="none", edgecolor=dark, linewidth=1.1, gid="marked")
    )
    axes.set_title(
        f"{result.types[at]}\nblack: {most:.2g} {_short(result.measured_in[at])}", fontsize=8
    )
    _counted(axes)


def _gone(axes: Axes, result: HeadTypes) -> None:
    """Heads that were removed from the model, hatched: every grey is a type's or a number's."""
    cells = [Rectangle((x - 0.5, y - 0.5), 1, 1) for y, x in result.gone.nonzero().tolist()]
    axes.add_collection(
        PatchCollection(
            cells, facecolor="white", edgecolor=LINES, hatch="////", linewidth=0, gid="gone"
        )
    )


def _legend(axes: Axes, result: HeadTypes, *, columns: int, anchor: tuple[float, float]) -> None:
    handles = [
        Patch(facecolor=_COLORS[type], label=f"{type} ({len(heads)})")
        for type, heads in result.named().items()
    ]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=anchor, ncols=columns,
        title=f"p ≤ {result.level:g} and large (number of heads)", title_fontsize=7, fontsize=7,
        alignment="left", handlelength=1.2, columnspacing=1.0,
    )  # fmt: skip


def _short(unit: str) -> str:
    return {"share of tokens": "of tokens", "share of eigenvalues": "of eigenvalues"}.get(
        unit, unit
    )


def _counted(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
