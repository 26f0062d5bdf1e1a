"""Figures of which heads are alike, and which can stand in for each other."""

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.heads import MEASURES, HeadSimilarity, Measure, Substitution
from workbench.plots import marks
from workbench.plots.style import LEVEL, new_figure, styled, titled

_TITLES = {
    "attention": "attention but to first tokens\ndivergence (nats)",
    "output": "outputs\ndebiased CKA",
    "writes": "what is written to (W_O)\nshared directions",
    "values": "what values read (W_V)\nshared directions",
    "queries": "what queries read (W_Q)\nshared directions",
    "keys": "what keys read (W_K)\nshared directions",
}
_MOST_NAMED = 36


def draw_head_similarity(result: HeadSimilarity, ax: Axes | None = None) -> Figure:
    """Six matrices in one order, heads that write alike side by side. Dark: alike.

    Only that of outputs is drawn where `ax` is given.
    """
    order = result.order("output")
    title = f"Which heads are alike, {result.model} ({result.task})"
    with styled():
        if ax is not None:
            _matrix(ax, result, "output", order)
            return titled(ax, title)
        figure = new_figure(width=10.0, height=7.0)
        panels = figure.subplots(2, 3).ravel()
        for axes, by in zip(panels, MEASURES, strict=True):
            _matrix(axes, result, by, order)
        return titled(panels[0], title)


def draw_substitution(result: Substitution, ax: Axes | None = None) -> Figure:
    """Each head replaced by a fit from each other one; outlined: better than its mean."""
    meaning = marks.Meaning(
        label=f"change in {marks.words(result.metric)} ({result.unit})",
        negative="lost by the fit",
        positive="gained",
        helps="positive",
    )
    title = f"One head in another's place, {result.model} ({result.task})"
    whole = torch.cat([result.effect, result.by_mean[:, None]], dim=1)
    marked = torch.zeros(whole.shape, dtype=torch.bool)
    marked[:, :-1] = result.p <= LEVEL
    with styled():
        count = len(result.names)
        if ax is None:
            width, height = max(4.5, 2.2 + 0.4 * count), max(4.0, 2.4 + 0.26 * count)
            ax = new_figure(width=width, height=height).subplots()
        assert ax is not None
        marks.grid(
            ax, whole.numpy(), marked.numpy(), meaning=meaning,
            columns=marks.Side("fitted from", [*result.names, "mean"]),
            rows=marks.Side("head that is replaced", result.names),
            title=f"outlined: not as its mean would do (corrected p ≤ {LEVEL})",
        )  # fmt: skip
        return titled(ax, title)


def _matrix(axes: Axes, result: HeadSimilarity, by: Measure, order: list[int]) -> None:
    values = (result.divergence if by == "attention" else result.matrix(by))[order][:, order]
    dark_is_low = by == "attention"
    finite = values[~values.isnan()]
    most = math.log(2) if dark_is_low else max(1e-9, float(finite.max()) if len(finite) else 1.0)
    image = axes.imshow(
        values.numpy(), cmap="Blues_r" if dark_is_low else "Blues", vmin=0, vmax=most,
        interpolation="nearest",
    )  # fmt: skip
    image.cmap.set_bad("#ececec")
    names = [result.names[at] for at in order]
    if len(names) <= _MOST_NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    else:
        axes.set(xticks=[], yticks=[], xlabel=f"{len(names)} heads, ordered by output")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(_TITLES[by], fontsize=8)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, aspect=24, pad=0.02)
    bar.outline.set_visible(False)
