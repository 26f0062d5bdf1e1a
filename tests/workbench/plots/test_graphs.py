"""Graphs: every node stands in its row, every edge leads from its start to its end."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from workbench.plots import graphs, marks
from workbench.plots.graphs import Edge
from workbench.plots.style import BLUE, RED

MEANING = marks.Meaning("help (nats)", "in the way", "helps", helps="positive")
LEVELS = {"embed": -1.0, "0.1": 0.0, "0.2": 0.0, "1.0": 1.0, "2.3": 2.0, "logits": 3.0}
EDGES = [
    Edge("embed", "0.1", 1.0, "v"),
    Edge("embed", "0.2", 0.5),
    Edge("0.1", "2.3", -2.0, "q"),
    Edge("0.2", "1.0", 0.25),
    Edge("1.0", "logits", -0.5),
    Edge("2.3", "logits", 1.5),
    Edge("embed", "logits", 0.1),
]


def drawn(edges=EDGES, levels=LEVELS, **options):
    axes = Figure(figsize=(6, 6)).subplots()
    graphs.graph(axes, edges, levels, meaning=MEANING, **options)
    return axes


def arrows(axes):
    return [one for one in axes.patches if isinstance(one, FancyArrowPatch)]


def nodes(axes):
    return {one.get_text(): one.get_position() for one in axes.texts if one.get_gid() == "node"}


def ends(arrow):
    points = arrow.get_path().vertices if arrow._path_original is None else arrow._path_original
    points = np.array(getattr(points, "vertices", points))
    return points[0], points[-1]


def test_nodes_stand_in_rows_from_the_lowest_level_up():
    at = nodes(drawn())
    assert set(at) == set(LEVELS)
    assert {name: y for name, (_, y) in at.items()} == {
        "embed": 0, "0.1": 1, "0.2": 1, "1.0": 2, "2.3": 3, "logits": 4,
    }  # fmt: skip


def test_no_two_nodes_of_a_row_stand_on_each_other():
    crowd = [Edge("embed", f"0.{head}", 1.0) for head in range(9)]
    crowd += [Edge(f"0.{head}", "logits", 1.0) for head in range(9)]
    at = nodes(drawn(crowd, LEVELS | {f"0.{head}": 0.0 for head in range(9)}))
    xs = sorted(x for name, (x, _) in at.items() if name.startswith("0."))
    assert min(np.diff(xs)) >= 0.99


def test_every_edge_leads_from_its_start_to_its_end():
    axes = drawn()
    at = nodes(axes)
    for edge, arrow in zip(graphs.strongest_edges(EDGES), arrows(axes), strict=True):
        start, end = ends(arrow)
        for point, node in ((start, edge.start), (end, edge.end)):
            assert np.hypot(*(np.array(at[node]) - point)) < 0.45


def test_colour_is_the_sign_and_width_the_size():
    found = arrows(drawn())
    order = graphs.strongest_edges(EDGES)
    assert [edge.weight for edge in order] == [-2.0, 1.5, 1.0, 0.5, -0.5, 0.25, 0.1]
    colors = [to_hex(arrow.get_edgecolor()) for arrow in found]
    assert colors == [BLUE if edge.weight > 0 else RED for edge in order]
    widths = [arrow.get_linewidth() for arrow in found]
    assert widths == sorted(widths, reverse=True)
    assert widths[3] == widths[4]


def test_where_negative_helps_it_is_blue():
    axes = Figure().subplots()
    noise = marks.Meaning("change (nats)", "helps", "in the way", helps="negative")
    graphs.graph(axes, EDGES[2:4], LEVELS, meaning=noise)
    assert [to_hex(arrow.get_edgecolor()) for arrow in arrows(axes)] == [BLUE, RED]
    assert [one.get_text() for one in axes.get_legend().get_texts()] == ["helps", "in the way"]


def test_only_the_strongest_are_drawn_and_it_is_said():
    axes = drawn(most=3)
    assert len(arrows(axes)) == 3
    assert set(nodes(axes)) == {"0.1", "2.3", "logits", "embed"}
    assert "the 3 strongest of 7 edges" in axes.get_title()
    assert "all 7 edges" in drawn().get_title()
    assert "the 7 strongest of 500 edges" in drawn(total=500).get_title()


def test_the_unit_and_both_signs_are_named():
    legend = drawn().get_legend()
    assert legend.get_title().get_text() == "help (nats)"
    assert [one.get_text() for one in legend.get_texts()] == ["helps", "in the way"]


def test_labels_and_rows_are_written():
    axes = drawn(row_names={-1.0: "tokens", 2.0: "layer 2"})
    assert [one.get_text() for one in axes.get_yticklabels()] == ["tokens", "layer 2"]
    assert list(axes.get_yticks()) == [0, 3]
    assert {"v", "q"} <= {one.get_text() for one in axes.texts}


def test_an_edge_that_leaps_over_rows_does_not_run_through_nodes():
    chain = [Edge(f"{at}.0", f"{at + 1}.0", 1.0) for at in range(6)]
    levels = {f"{at}.0": float(at) for at in range(7)}
    axes = drawn([*chain, Edge("0.0", "6.0", 0.5)], levels)
    at = nodes(axes)
    leap = arrows(axes)[-1]._path_original.interpolated(20).vertices
    for name in list(at)[1:-1]:
        x, y = at[name]
        level = leap[np.abs(leap[:, 1] - y) < 0.2]
        assert (np.abs(level[:, 0] - x) > 0.3).all()


def test_links_are_drawn_between_nodes_that_are_there():
    links = [Edge("0.2", "2.3", 0.0), Edge("0.2", "9.9", 0.0)]
    axes = drawn(levels=LEVELS | {"9.9": 2.0}, links=links)
    assert len(arrows(axes)) == 8
    assert "9.9" not in nodes(axes)
    assert to_hex(arrows(axes)[-1].get_edgecolor()) not in (BLUE, RED)


def test_the_same_graph_is_laid_out_the_same_way():
    assert nodes(drawn()) == nodes(drawn())


def test_more_rows_and_wider_rows_take_more_room():
    small = graphs.graph_size(EDGES, LEVELS)
    assert graphs.graph_size(EDGES[:2], LEVELS)[1] < small[1]
    wide = [Edge("embed", f"0.{head}", 1.0) for head in range(12)]
    assert graphs.graph_size(wide, LEVELS | {f"0.{h}": 0.0 for h in range(12)})[0] > small[0]


def test_an_empty_graph_is_an_empty_picture():
    assert not arrows(drawn([])) and "all 0 edges" in drawn([]).get_title()


def test_a_node_without_a_level_and_an_edge_that_leads_down_are_refused():
    with pytest.raises(ValueError, match=r"no level for node '7.7': give one for every node"):
        drawn([Edge("embed", "7.7", 1.0)])
    with pytest.raises(ValueError, match=r"2.3 -> 1.0 does not lead to a higher level"):
        drawn([Edge("2.3", "1.0", 1.0)])
