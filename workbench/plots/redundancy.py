"""Figures of heads that stand in for each other: pairs, sets, backups and clusters."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from scipy.cluster import hierarchy

from workbench.heads import Backups, Clusters, Interaction, Redundancy
from workbench.plots import marks
from workbench.plots.style import BLUE, GREY, INK, LEVEL, LINES, QUIET, new_figure, styled, titled

_JOINS = ("stand in for each other", "work in series")


def draw_redundancy(result: Redundancy, ax: Axes | None = None) -> Figure:
    """What every pair costs beyond the sum, and beside it the strongest pairs with their bounds.

    Only the matrix is drawn where `ax` is given.
    """
    meaning = _meaning(result.metric, result.unit)
    names = [named(head) for head in result.heads]
    values, marked = result.interaction.numpy(), np.nan_to_num(result.p.numpy(), nan=1) <= LEVEL
    title = f"{result.task}: pairs of heads ({result.ablation} ablation), {result.model}"
    with styled():
        if ax is not None:
            pair_map(ax, values, marked, names=names, meaning=meaning)
            return titled(ax, title)
        figure = new_figure(width=7.6, height=max(4.2, 2.4 + 0.2 * len(names)))
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        pair_map(left, values, marked, names=names, meaning=meaning)
        rows, columns = np.triu_indices(len(names), 1)
        order = np.argsort(-np.abs(values[rows, columns]), kind="stable")[: marks.MOST_BARS]
        at = (rows[order], columns[order])
        marks.bars(
            right, values[at], bounds=(result.low.numpy()[at], result.high.numpy()[at]),
            marked=marked[at], meaning=meaning,
            names=[f"{names[i]}, {names[j]}" for i, j in zip(*at, strict=True)],
        )  # fmt: skip
        right.set_title(f"strongest pairs (filled: p ≤ {LEVEL})", fontsize=8)
        return titled(left, title)


def pair_map(
    ax: Axes,
    values: Float[ndarray, "head head"],
    marked: ndarray,
    *,
    names: Sequence[str],
    meaning: marks.Meaning,
) -> None:
    """A map of pairs, both sides with the heads' names."""
    side = marks.Side("head", names)
    marks.grid(
        ax, values, marked, meaning=meaning, rows=side, columns=side,
        title=f"every pair (outlined: corrected p ≤ {LEVEL})", grey="",
    )  # fmt: skip


def draw_interaction(result: Interaction, ax: Axes | None = None) -> Figure:
    """What each set costs as a whole, and the sum of what its members cost one by one."""
    sets = list(result.sets)
    rows = np.arange(len(sets), dtype=float)
    marked = result.p.numpy() <= LEVEL
    meaning = _meaning(result.metric, result.unit)
    with styled():
        axes = ax
        if axes is None:
            axes = new_figure(width=7.2, height=marks.bars_height(len(sets))).subplots()
        whole = (result.effect_low.numpy(), result.effect_high.numpy())
        effect, summed = result.effect.numpy(), result.sum.numpy()
        marks.bar_row(axes, rows, effect, bounds=whole, marked=marked, colors=[BLUE] * len(sets))
        axes.plot(summed, rows, "D", color=INK, markersize=5, gid="sum", zorder=4)
        marks.bar_axes(axes, [_short(one) for one in sets], label=_change(meaning.label))
        axes.set_title(
            f"bar: all of a set gone; diamond: sum of each alone (filled: p ≤ {LEVEL})", fontsize=8
        )
        return titled(axes, f"{result.task}: sets of heads, {result.model}")


def draw_backups(result: Backups, ax: Axes | None = None) -> Figure:
    """How much more each head costs once others are gone: all heads, and those that were chosen.

    Only the chosen ones are drawn where `ax` is given.
    """
    gone = "+".join(named(head) for head in result.of)
    title = f"{result.task}: who takes over for {gone}, {result.model}"
    meaning = marks.Meaning(
        label=f"growth of the effect on {marks.words(result.metric)} ({result.unit})",
        negative="takes over", positive="has less to lose", helps="negative",
    )  # fmt: skip
    names = [named(head) for head in result.heads]
    bounds = (result.low.numpy(), result.high.numpy())
    with styled():
        if ax is not None:
            _chosen(ax, result, bounds=bounds, names=names, meaning=meaning)
            return titled(ax, title)
        figure = new_figure(width=7.2, height=marks.grid_height(result.map.shape[1]))
        left, right = figure.subplots(1, 2, width_ratios=(0.9, 1))
        first = result.map[0].numpy()
        marks.grid(
            left, first, np.zeros(first.shape, dtype=bool), meaning=meaning,
            title=f"growth with {gone} gone, choosing prompts", grey="gone, or not searched",
        )  # fmt: skip
        _chosen(right, result, bounds=bounds, names=names, meaning=meaning)
        return titled(left, title)


def _chosen(
    ax: Axes,
    result: Backups,
    *,
    bounds: tuple[ndarray, ndarray],
    names: list[str],
    meaning: marks.Meaning,
) -> None:
    marked = result.accepted.numpy()
    marks.bars(
        ax, result.growth.numpy(), bounds=bounds, marked=marked, names=names, meaning=meaning
    )
    ax.set_title("one after the other, judging prompts (filled: accepted)", fontsize=8)


def draw_clusters(result: Clusters, ax: Axes | None = None) -> Figure:
    """The tree of heads and its cut, and beside it how often two heads shared a cluster.

    Only the tree is drawn where `ax` is given.
    """
    sure = "" if np.isnan(result.stability) else f" (adjusted Rand {result.stability:.2f})"
    title = f"Clusters by {result.source}" + (f", {result.task}" if result.task else "")
    names = [named(head) for head in result.heads]
    with styled():
        if ax is not None:
            tree(ax, result, names)
            return titled(ax, title)
        height = max(3.4, 1.4 + 0.2 * len(names))
        alone = np.isnan(result.stability)
        figure = new_figure(width=5.0 if alone else 8.0, height=height)
        if alone:
            tree(figure.subplots(), result, names)
            return titled(figure.axes[0], title)
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        order = tree(left, result, names)
        shared = result.together.numpy()[np.ix_(order, order)]
        image = right.imshow(shared, cmap="Blues", vmin=0, vmax=1, origin="lower", aspect="auto")
        labels = [names[at] for at in order]
        right.set_xticks(range(len(names)), labels, rotation=90)
        right.set_yticks(range(len(names)), labels)
        right.spines[:].set_visible(False)
        right.set_title(f"together in resampled prompts{sure}", fontsize=8)
        bar = figure.colorbar(image, ax=right, location="bottom", aspect=28, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("share of resamples", fontsize=8)
        return titled(left, title)


def tree(ax: Axes, result: Clusters, names: Sequence[str]) -> list[int]:
    """The tree lying on its side, clusters in blue, and the order of its leaves from below."""
    below = result.cut
    drawn = hierarchy.dendrogram(
        result.tree.double().numpy(), no_plot=True, color_threshold=below,
        labels=list(range(len(names))),
    )  # fmt: skip
    for across, along in zip(drawn["dcoord"], drawn["icoord"], strict=True):
        color = BLUE if max(across) <= below else GREY
        ax.plot(across, along, color=color, linewidth=1.4, solid_joinstyle="miter")
    order = [int(at) for at in drawn["leaves"]]
    ax.set_yticks(10 * np.arange(len(names)) + 5, [names[at] for at in order])
    ax.tick_params(axis="y", length=0)
    ax.axvline(below, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), gid="cut")
    ax.annotate(
        "cut", (below, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
        textcoords="offset points", fontsize=8, color=QUIET, va="top",
    )  # fmt: skip
    ax.set(xlim=(1.02, 0), xlabel=f"distance ({result.linkage} linkage)", ylabel="head")
    ax.set_ylim(0, 10 * len(names))
    ax.grid(axis="x", color=LINES, linewidth=0.6)
    ax.spines["left"].set_visible(False)
    ax.set_title("blue: joined below the cut, a cluster", fontsize=8)
    return order


def named(head: tuple[int, int]) -> str:
    """A head as it is written: "5.3"."""
    return ".".join(map(str, head))


def _meaning(metric: str, unit: str) -> marks.Meaning:
    return marks.Meaning(
        label=f"{marks.words(metric)} beyond the sum ({unit})",
        negative=_JOINS[0], positive=_JOINS[1], helps="negative",
    )  # fmt: skip


def _change(label: str) -> str:
    return f"change in {label}".replace(" beyond the sum", "")


def _short(heads: str) -> str:
    parts = heads.split("+")
    return "+".join(parts) if len(parts) <= 4 else f"{'+'.join(parts[:3])}+… ({len(parts)})"
