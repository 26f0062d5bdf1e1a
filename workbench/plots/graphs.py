"""A circuit as a picture: who gives to whom, in rows from the bottom to the top.

Takes names and numbers, knows no result, and computes nothing but where things go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path

from workbench.plots.marks import Meaning
from workbench.plots.style import BLUE, QUIET, RED

MOST_EDGES = 30
"""More edges than this cannot be told apart in one picture."""

_THINNEST, _WIDEST = 0.5, 4.5
"""Points."""

_PITCH, _ROW = 0.72, 0.55
"""Inches from node to node in a row, and from row to row: the units of x and y."""

_NODE, _BEND = 1.0, 0.36
"""How much of a row a node takes, and an edge that passes between nodes."""

_SWEEPS = 24

Point = tuple[float, float]


@dataclass(frozen=True)
class Edge:
    """What one node gives to a later one; `label` says where it goes in, such as "q"."""

    start: str
    end: str
    weight: float
    label: str = ""


def strongest_edges(edges: Sequence[Edge], n: int = MOST_EDGES) -> list[Edge]:
    """The `n` edges whose weight differs most from zero, strongest first."""
    return sorted(edges, key=lambda edge: -abs(edge.weight))[:n]


def graph_size(
    edges: Sequence[Edge],
    levels: Mapping[str, float],
    *,
    most: int = MOST_EDGES,
    links: Sequence[Edge] = (),
) -> Point:
    """Inches, width and height, that keep the nodes of a graph and its rows apart."""
    layout = _Layout.of(*_shown(edges, links, most), levels)
    return max(5.0, 1.4 + _PITCH * layout.width), 1.5 + _ROW * len(layout.rows)


def graph(
    axes: Axes,
    edges: Sequence[Edge],
    levels: Mapping[str, float],
    *,
    meaning: Meaning,
    most: int = MOST_EDGES,
    row_names: Mapping[float, str] | None = None,
    links: Sequence[Edge] = (),
    total: int = 0,
) -> None:
    """The strongest `most` edges and their nodes, in one row for each level, the lowest below.

    Blue edges help and red ones do not; the wider, the stronger. The title says how many edges
    are drawn, and how many there are: `total`, if not all are given.

    row_names   are written beside the rows
    links       say which nodes belong together; thin and grey, drawn where both ends are
    """
    shown, joints = _shown(edges, links, most)
    layout = _Layout.of(shown, joints, levels)
    largest = max((abs(edge.weight) for edge in shown), default=0.0) or 1.0
    for edge, color in zip(shown, meaning.colors([edge.weight for edge in shown]), strict=True):
        width = _THINNEST + (_WIDEST - _THINNEST) * abs(edge.weight) / largest
        _draw_edge(axes, layout.route(edge), edge.label, color=color, width=width)
    for link in joints:
        _draw_edge(axes, layout.route(link), "", color=QUIET, width=_THINNEST)
    for row in layout.rows.values():
        for name in row:
            axes.text(
                *layout.at[name], name, ha="center", va="center", fontsize=8, zorder=4, gid="node",
                bbox={"boxstyle": "round,pad=0.3", "fc": "white", "ec": QUIET, "lw": 0.8},
            )  # fmt: skip
    _frame(axes, layout, row_names or {})
    total = total or len(edges)
    few = f"the {len(shown)} strongest of" if len(shown) < total else "all"
    axes.set_title(f"{few} {total} edges; the widest: {largest:.3g} in size", fontsize=8)
    _explain(axes, meaning)


def _shown(
    edges: Sequence[Edge], links: Sequence[Edge], most: int
) -> tuple[list[Edge], list[Edge]]:
    """The edges to be drawn, and the links between their nodes."""
    shown = strongest_edges(edges, most)
    nodes = {name for edge in shown for name in (edge.start, edge.end)}
    return shown, [link for link in links if {link.start, link.end} <= nodes]


@dataclass(frozen=True)
class _Layout:
    """Where nodes stand, and where edges that leap over rows pass between them."""

    edges: Sequence[Edge]
    rows: Mapping[float, list[str]]
    at: Mapping[str, Point]

    @classmethod
    def of(
        cls, edges: Sequence[Edge], links: Sequence[Edge], levels: Mapping[str, float]
    ) -> "_Layout":
        """Every node near what it is joined to, and apart from the others of its row."""
        edges = [*edges, *links]
        nodes = list(dict.fromkeys(name for edge in edges for name in (edge.start, edge.end)))
        unknown = [name for name in nodes if name not in levels]
        if unknown:
            raise ValueError(f"no level for node {unknown[0]!r}: give one for every node")
        rows = {level: [n for n in nodes if levels[n] == level] for level in _sorted(levels, nodes)}
        height = {name: y for y, row in enumerate(rows.values()) for name in row}
        joined = nx.Graph()
        joined.add_nodes_from(nodes)
        stops = [list(row) for row in rows.values()]
        for edge in edges:
            if height[edge.start] >= height[edge.end]:
                raise ValueError(f"{edge.start} -> {edge.end} does not lead to a higher level")
            bends = [_bend(edge, y) for y in range(height[edge.start] + 1, height[edge.end])]
            nx.add_path(joined, [edge.start, *bends, edge.end])
            for y, bend in enumerate(bends, start=height[edge.start] + 1):
                stops[y].append(bend)
        x = _horizontal(joined, stops, set(nodes))
        return cls(
            edges, rows, {name: (x[name], float(y)) for y, row in enumerate(stops) for name in row}
        )

    @property
    def width(self) -> float:
        """From the leftmost to the rightmost, with room at the sides."""
        xs = [x for x, _ in self.at.values()] or [0.0]
        return max(xs) - min(xs) + 2 * _NODE

    def route(self, edge: Edge) -> list[Point]:
        """The points that an edge goes through, beside its fellows where it leaves and enters."""
        (x, y), (end_x, end_y) = self.at[edge.start], self.at[edge.end]
        between = [self.at[_bend(edge, at)] for at in range(int(y) + 1, int(end_y))]
        leaving = [other for other in self.edges if other.start == edge.start]
        entering = [other for other in self.edges if other.end == edge.end]
        start = (x + self._beside(edge, leaving, step=1), y + 0.22)
        end = (end_x + self._beside(edge, entering, step=-1), end_y - 0.24)
        return [start, *between, end]

    def _beside(self, edge: Edge, fellows: Sequence[Edge], *, step: int) -> float:
        """How far from the middle of a node, in the order in which they come or go."""

        def towards(other: Edge) -> float:
            y = int(self.at[other.start if step > 0 else other.end][1]) + step
            bend = _bend(other, y)
            far = other.end if step > 0 else other.start
            return self.at[bend if bend in self.at else far][0]

        order = sorted(fellows, key=towards)
        return (order.index(edge) - (len(order) - 1) / 2) * min(0.2, 0.6 / len(order))


def _sorted(levels: Mapping[str, float], nodes: Sequence[str]) -> list[float]:
    return sorted({levels[name] for name in nodes})


def _bend(edge: Edge, y: int) -> str:
    """The name of the place where an edge passes through a row."""
    return f"{edge.start} -> {edge.end} {edge.label} at {y}"


def _horizontal(joined: nx.Graph, rows: Sequence[list[str]], nodes: set[str]) -> dict[str, float]:
    """x of all that stands in the rows: back and forth, each towards what it is joined to."""
    x = {name: at - len(row) / 2 for row in rows for at, name in enumerate(row)}
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            x |= _spread(
                {
                    name: sum(x[n] for n in joined[name]) / max(1, joined.degree(name))
                    for name in row
                },
                nodes,
            )
    return x


def _spread(wanted: Mapping[str, float], nodes: set[str]) -> dict[str, float]:
    """A row in the order in which its members want to stand, apart from each other."""
    order = sorted(wanted, key=lambda name: (wanted[name], name))
    x = {order[0]: wanted[order[0]]}
    for before, name in pairwise(order):
        apart = sum(_NODE / 2 if one in nodes else _BEND / 2 for one in (before, name))
        x[name] = max(wanted[name], x[before] + apart)
    shift = sum(x[name] - wanted[name] for name in order) / len(order)
    return {name: value - shift for name, value in x.items()}


def _draw_edge(axes: Axes, route: list[Point], label: str, *, color: str, width: float) -> None:
    """A smooth line that leaves and enters upright."""
    at = np.array(route)
    slope = np.gradient(at, axis=0)
    slope[[0, -1], 0] = 0.0
    points = [at[0]]
    for here, there in pairwise(range(len(at))):
        points += [at[here] + slope[here] / 3, at[there] - slope[there] / 3, at[there]]
    codes = [Path.MOVETO] + [Path.CURVE4] * (len(points) - 1)
    axes.add_patch(
        FancyArrowPatch(
            path=Path(np.array(points), codes), arrowstyle="-|>", mutation_scale=6 + width,
            color=color, fill=False, linewidth=width, alpha=0.75, zorder=2, gid="edge",
        )
    )  # fmt: skip
    if label:
        axes.text(
            route[-1][0], route[-1][1] - 0.2, label, fontsize=8, color=color, ha="center",
            va="center", zorder=3, bbox={"boxstyle": "circle,pad=0.05", "fc": "white", "lw": 0},
        )  # fmt: skip


def _frame(axes: Axes, layout: _Layout, names: Mapping[float, str]) -> None:
    xs = [x for x, _ in layout.at.values()] or [0.0]
    axes.set(xlim=(min(xs) - _NODE, max(xs) + _NODE), ylim=(-0.5, max(1, len(layout.rows)) - 0.5))
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    named = {y: names[level] for y, level in enumerate(layout.rows) if level in names}
    axes.set_yticks(list(named), list(named.values()))
    axes.tick_params(axis="y", length=0)


def _explain(axes: Axes, meaning: Meaning) -> None:
    words = (meaning.positive, meaning.negative)
    helps, hurts = words if meaning.helps == "positive" else words[::-1]
    keys = [Line2D([], [], color=BLUE, lw=2.5, label=helps)]
    keys.append(Line2D([], [], color=RED, lw=2.5, label=hurts))
    axes.legend(
        handles=keys, title=meaning.label, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2
    )
