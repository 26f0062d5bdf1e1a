"""Figures of circuits: how much they keep as they grow, and who gives to whom in them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.patching import CircuitStudy, EdgeScores, FaithfulnessCurve
from workbench.plots import graphs, marks
from workbench.plots.style import GREY, INK, new_figure, styled, titled

_ARROW = " -> "
_SHOWN = 24


def draw_circuit_study(result: CircuitStudy, ax: Axes | None = None) -> Figure:
    """Faithfulness over sizes beside random circuits, and the strongest edges as a graph.

    Only the curve is drawn where `ax` is given.
    """
    title = f"{result.task}: edges ranked by {result.method}, {result.model}"
    with styled():
        if ax is not None:
            _study_curve(ax, result)
            return titled(ax, title)
        edges, levels = _graph(result.edges, result.help.numpy())
        shown = graphs.strongest_edges(edges, _SHOWN)
        width, height = graphs.graph_size(shown, levels)
        figure = new_figure(width=width + 4.6, height=max(height, 4.2))
        left, right = figure.subplots(1, 2, width_ratios=(4.6, width))
        _study_curve(left, result)
        graphs.graph(right, edges, levels, meaning=_meaning(result.unit), most=_SHOWN)
        return titled(left, title)


def draw_faithfulness_curve(result: FaithfulnessCurve, ax: Axes | None = None) -> Figure:
    """The share of the metric that circuits of growing size keep."""
    title = f"{result.task}: circuits of {result.method}, {result.model}"
    with styled():
        axes = ax if ax is not None else new_figure(width=5.5, height=3.8).subplots()
        sizes = result.size.numpy()
        marks.curve(
            axes, sizes, result.faithfulness.numpy(),
            bounds=(result.low.numpy(), result.high.numpy()), label=result.method,
        )  # fmt: skip
        _axes(axes, int(sizes.max()), result.metric)
        return titled(axes, title)


def draw_edge_scores(result: EdgeScores, ax: Axes | None = None) -> Figure:
    """The strongest edges as a graph, from the embedding at the bottom to the logits on top."""
    names = result.most_important(graphs.MOST_EDGES)
    values = np.array([float(result.help[result.graph.edge(name)]) for name in names])
    edges, levels = _graph(names, values)
    with styled():
        width, height = graphs.graph_size(edges, levels)
        axes = ax if ax is not None else new_figure(width=width, height=height).subplots()
        graphs.graph(axes, edges, levels, meaning=_meaning(result.unit))
        return titled(axes, f"{result.task}: strongest edges by {result.method}, {result.model}")


def _study_curve(axes: Axes, result: CircuitStudy) -> None:
    sizes = result.size.numpy()
    bounds = (result.faithfulness_low.numpy(), result.faithfulness_high.numpy())
    marks.curve(
        axes, sizes, result.faithfulness.numpy(), bounds=bounds, label="first of the ranking"
    )
    for number, one in enumerate(result.random.numpy()):
        label = "at random" if number == 0 else "_nolegend_"
        axes.plot(sizes, one, color=GREY, linewidth=1.0, linestyle="--", label=label)
    _axes(axes, result.all_edges, result.metric)


def _axes(axes: Axes, most: int, metric: str) -> None:
    axes.axhline(1, color=INK, linewidth=0.7)
    axes.axhline(0, color=INK, linewidth=0.7)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="edges kept (of all others: cut)", ylabel=f"share of {metric} kept")
    axes.set_xlim(0, most)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1.0), min(high, 2.5))
    axes.legend(loc="best")


def _graph(names: list[str], values: np.ndarray) -> tuple[list[graphs.Edge], dict[str, float]]:
    """Edges between parts of the model, and how high each part stands."""
    edges, levels = [], {}
    for name, value in zip(names, values.tolist(), strict=True):
        start, end = name.split(_ARROW)
        part, _, place = end.partition(" ")
        node = f"head {place}" if part in ("q", "k", "v") else end
        edges.append(graphs.Edge(start, node, value, part if part in ("q", "k", "v") else ""))
        levels |= {start: _level(start), node: _level(node)}
    return edges, levels


def _level(name: str) -> float:
    """Attention below the MLP of its layer; the embedding below all, the logits above."""
    kind, _, place = name.partition(" ")
    if kind == "embed":
        return -1.0
    if kind == "logits":
        return 1e6
    layer = int(place.split(".")[0])
    return 2.0 * layer + (kind == "mlp")


def _meaning(unit: str) -> marks.Meaning:
    return marks.Meaning(
        label=f"help ({unit})", negative="gets in the way", positive="helps", helps="positive"
    )
