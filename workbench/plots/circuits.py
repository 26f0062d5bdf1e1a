"""Figures of circuits: their edges as a graph, and how much of a metric they keep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from workbench.patching import (
    AcdcCircuit,
    CircuitStudy,
    EdgeScores,
    FaithfulnessCurve,
    Graph,
    Minimality,
)
from workbench.patching.graph import ARROW
from workbench.plots import graphs, marks
from workbench.plots.style import INK, LEVEL, LINES, QUIET, new_figure, styled, titled

_CURVE_HEIGHT = 3.2


def draw_circuit_study(result: CircuitStudy, ax: Axes | None = None) -> Figure:
    """What circuits of growing size keep, beside random ones; below, the strongest edges.

    Only the curve is drawn where `ax` is given.
    """
    title = f"{result.task}: a circuit by {result.method}, {result.model}"
    bounds = (result.faithfulness_low.numpy(), result.faithfulness_high.numpy())
    values = (result.size.numpy(), result.faithfulness.numpy())
    with styled():
        if ax is not None:
            _kept(ax, *values, bounds=bounds, metric=result.metric, random=result.random.numpy())
            return titled(ax, title)
        weights = result.help.tolist()
        drawn = _Drawn.of(result.graph, result.edges, weights, total=result.graph.size)
        width, height = drawn.size()
        figure = new_figure(width=max(7.0, width), height=_CURVE_HEIGHT + height)
        upper, lower = figure.subplots(2, 1, height_ratios=(_CURVE_HEIGHT, height))
        _kept(upper, *values, bounds=bounds, metric=result.metric, random=result.random.numpy())
        drawn.on(lower, _help(result.metric, result.unit))
        return titled(upper, title)


def draw_faithfulness_curve(result: FaithfulnessCurve, ax: Axes | None = None) -> Figure:
    """The share of the metric that circuits of growing size keep, with its bounds."""
    bounds = (result.low.numpy(), result.high.numpy())
    with styled():
        axes = new_figure(width=7.0, height=3.8).subplots() if ax is None else ax
        _kept(
            axes, result.size.numpy(), result.faithfulness.numpy(), bounds=bounds,
            metric=result.metric,
        )  # fmt: skip
        return titled(axes, f"{result.task}: faithfulness by {result.method}, {result.model}")


def draw_edge_scores(result: EdgeScores, ax: Axes | None = None) -> Figure:
    """The strongest edges as a graph, blue where the edge helps the metric."""
    places = [result.graph.edge(name) for name in result.most_important(graphs.MOST_EDGES)]
    names = [result.graph.name(*place) for place in places]
    weights = [float(result.help[place]) for place in places]
    drawn = _Drawn.of(result.graph, names, weights, total=result.graph.size)
    title = f"{result.task}: edges by {result.method} in {result.run} prompts, {result.model}"
    return _graph(drawn, title, _help(result.metric, result.unit), ax)


def draw_acdc_circuit(result: AcdcCircuit, ax: Axes | None = None) -> Figure:
    """The edges that were kept as a graph, by what cutting each would have cost."""
    places = result.mask.nonzero().tolist()
    names = [result.graph.name(*place) for place in places]
    drawn = _Drawn.of(result.graph, names, result.cost[result.mask].tolist(), total=len(names))
    title = f"{result.task}: edges kept by ACDC (threshold {result.threshold:g}), {result.model}"
    return _graph(drawn, title, _help(result.metric, result.unit), ax)


def draw_minimality(result: Minimality, ax: Axes | None = None) -> Figure:
    """What a circuit loses with each of its edges: the strongest from the top down."""
    order = np.argsort(-np.abs(result.effect.numpy()), kind="stable")[: marks.MANY_BARS]
    meaning = marks.Meaning(
        label=f"change in {marks.words(result.metric)} ({result.unit})",
        negative="the edge helps",
        positive="gets in the way",
        helps="negative",
    )
    with styled():
        axes = ax
        if axes is None:
            axes = new_figure(width=7.2, height=marks.bars_height(len(order))).subplots()
        marks.bars(
            axes,
            result.effect.numpy()[order],
            bounds=(result.low.numpy()[order], result.high.numpy()[order]),
            marked=result.p.numpy()[order] <= LEVEL,
            names=[result.edge[at] for at in order],
            meaning=meaning,
        )
        few = f"the {len(order)} strongest of {len(result.edge)} edges, each cut alone"
        axes.set_title(f"{few} (filled: corrected p ≤ {LEVEL})", fontsize=8)
        return titled(axes, f"{result.task}: {result.circuit}, {result.model}")


@dataclass(frozen=True)
class _Drawn:
    """Edges by name, such as "head 5.1 -> q 9.3", as a graph of heads and MLPs.

    Keys and values that several heads share are nodes of their own ("kv 9.1"), linked to the
    heads that read them.
    """

    edges: list[graphs.Edge]
    links: list[graphs.Edge]
    levels: dict[str, float]
    rows: dict[float, str]
    total: int

    @classmethod
    def of(
        cls, graph: Graph, names: Sequence[str], weights: Sequence[float], *, total: int
    ) -> "_Drawn":
        """The edges with these names; `total` is how many there are, drawn or not."""
        shares = graph.heads // graph.key_value_heads
        edges = []
        for name, weight in zip(names, weights, strict=True):
            writer, reader = name.split(ARROW)
            end, label = _reader(reader, shared=shares > 1)
            edges.append(graphs.Edge(_node(writer), end, weight, label))
        links = [
            graphs.Edge(f"kv {layer}.{head // shares}", f"{layer}.{head}", 0.0)
            for layer in range(graph.layers)
            for head in range(graph.heads)
            if shares > 1
        ]
        nodes = {name for edge in (*edges, *links) for name in (edge.start, edge.end)}
        levels = {name: _level(name, graph.layers) for name in nodes}
        rows = {level: _row(level, graph.layers) for level in levels.values()}
        return cls(edges, links, levels, rows, total)

    def size(self) -> graphs.Point:
        """Inches that the graph takes."""
        return graphs.graph_size(self.edges, self.levels, links=self.links)

    def on(self, axes: Axes, meaning: marks.Meaning) -> None:
        """Draw it."""
        graphs.graph(
            axes, self.edges, self.levels, meaning=meaning, row_names=self.rows,
            links=self.links, total=self.total,
        )  # fmt: skip


def _node(writer: str) -> str:
    return writer.removeprefix("head ")


def _reader(reader: str, *, shared: bool) -> tuple[str, str]:
    """The node that a reader belongs to, and through what it reads."""
    part, _, place = reader.partition(" ")
    if part not in ("q", "k", "v"):
        return reader, ""
    return (f"kv {place}" if shared and part != "q" else place), part


def _level(node: str, layers: int) -> float:
    """Within a layer keys and values come first, then heads, then the MLP."""
    if node in ("embed", "logits"):
        return -1.0 if node == "embed" else float(layers)
    kind, _, place = node.rpartition(" ")
    return int(place.partition(".")[0]) + {"kv": -0.25, "mlp": 0.5}.get(kind, 0.0)


def _row(level: float, layers: int) -> str:
    """What is written beside a row; MLPs bear their layer in their names."""
    layer, within = math.ceil(level), math.ceil(level) - level
    if not 0 <= layer < layers or within == 0.5:
        return ""
    return f"layer {layer}" if within == 0 else f"layer {layer}, k v"


def _graph(drawn: _Drawn, title: str, meaning: marks.Meaning, ax: Axes | None) -> Figure:
    with styled():
        axes = ax
        if axes is None:
            width, height = drawn.size()
            axes = new_figure(width=width, height=height).subplots()
        drawn.on(axes, meaning)
        return titled(axes, title)


def _kept(
    axes: Axes,
    size: Int[ndarray, " circuit"],
    share: Float[ndarray, " circuit"],
    *,
    bounds: tuple[Float[ndarray, " circuit"], Float[ndarray, " circuit"]],
    metric: str,
    random: Float[ndarray, "draw circuit"] | None = None,
) -> None:
    """The share that circuits keep by their size, 1 and 0 marked, and random ones in grey."""
    for level in (0, 1):
        axes.axhline(level, color=INK, linewidth=0.7, linestyle=":")
    if random is not None:
        axes.plot(size, random.T, color=QUIET, linewidth=0.8, alpha=0.6)
        times = f", {len(random)} times" if len(random) > 1 else ""
        axes.plot([], [], color=QUIET, linewidth=0.8, label=f"as many edges at random{times}")
    marks.curve(axes, size, share, bounds=bounds, label="the first edges of the ranking")
    axes.plot(size, share, "o", color=marks.BLUE, markersize=3)
    first = max(1, int(size[size > 0].min()))
    axes.set_xscale("symlog", linthresh=first, linscale=0.4)
    decades = range(math.ceil(math.log10(first)), math.ceil(math.log10(size.max())) + 1)
    axes.set_xticks([0, *(10**decade for decade in decades)])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", color=LINES, linewidth=0.6)
    axes.set(xlabel="number of edges that are kept", xlim=(0, None))
    axes.set(ylabel=f"share of {marks.words(metric)} kept\n(1: as the model)")
    # The line at 1 lies where the legend may: it is not struck through.
    axes.legend(loc="best", frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)


def _help(metric: str, unit: str) -> marks.Meaning:
    label = f"help to {marks.words(metric)} ({unit})"
    return marks.Meaning(label, "gets in the way", "the edge helps", helps="positive")
