"""Figures of circuits show the edges and curves that the results hold."""

import dataclasses

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from workbench import plots
from workbench.patching import (
    AcdcCircuit,
    CircuitStudy,
    EdgeScores,
    FaithfulnessCurve,
    Graph,
    Minimality,
)
from workbench.statistics import Estimate

GRAPH = Graph(layers=2, heads=4, key_value_heads=2, mlp="after")
ALONE = Graph(layers=2, heads=4, key_value_heads=4, mlp="after")
WORDS = {
    "source": "counterfactual", "metric": "logit_diff", "unit": "nats", "task": "ioi",
    "task_digest": "t", "model": "tiny", "model_digest": "m",
}  # fmt: skip


def scores(graph=GRAPH, edges=None):
    edges = edges or {
        "embed -> mlp 0": -2.0, "mlp 0 -> k 1.1": 1.0, "head 1.2 -> logits": -0.5,
        "mlp 0 -> q 1.2": -0.25,
    }  # fmt: skip
    score = torch.zeros(graph.edges.shape)
    for name, value in edges.items():
        score[graph.edge(name)] = value
    nothing = torch.zeros(0, 3)
    return EdgeScores(
        graph=graph, score=score, per_prompt=score[..., None].repeat(1, 1, 3), part=[],
        total=nothing, gap=nothing, method="exact", run="clean", quadrature="", **WORDS,
    )  # fmt: skip


SIZES = torch.tensor([0, 4, 16, 82])
SHARE = torch.tensor([0.0, 0.5, 1.25, 1.0])


def curve():
    return FaithfulnessCurve(
        fraction=SIZES / 82, size=SIZES, faithfulness=SHARE, low=SHARE - 0.25, high=SHARE + 0.5,
        per_prompt=torch.zeros(4, 3), cpr=Estimate(0.9, 0.8, 1.0, 3), cmd=0.1, method="exact",
        by="magnitude", how="greedy", **WORDS,
    )  # fmt: skip


def study():
    random = torch.tensor([[0.0, 0.0, 0.1, 1.0], [0.0, 0.1, 0.2, 1.0]])
    return CircuitStudy(
        help=torch.tensor([2.0, -1.0, 0.5]), p=torch.tensor([0.01, 0.2, 0.3]),
        edges=["embed -> mlp 0", "mlp 0 -> k 1.1", "head 1.2 -> logits"], size=SIZES,
        faithfulness=SHARE, faithfulness_low=SHARE - 0.25, faithfulness_high=SHARE + 0.5,
        random=random, cpr=0.9, cmd=0.1, relative_gap=0.0, graph=GRAPH, method="exact",
        by="magnitude", how="greedy", **WORDS,
    )  # fmt: skip


def acdc():
    mask = torch.zeros_like(GRAPH.edges)
    cost = torch.zeros(GRAPH.edges.shape)
    for name, value in {"embed -> mlp 0": 2.0, "mlp 0 -> logits": 0.5}.items():
        mask[GRAPH.edge(name)], cost[GRAPH.edge(name)] = True, value
    return AcdcCircuit(
        graph=GRAPH, mask=mask, cost=cost, start=1.0, end=0.9, tried=80, threshold=0.1, **WORDS
    )


def minimality(count=3):
    effect = torch.linspace(-1, 1, count) + 0.1
    return Minimality(
        effect=effect, low=effect - 0.25, high=effect + 0.5,
        p=torch.where(effect.abs() > 0.5, 0.01, 0.5), per_prompt=effect[:, None].repeat(1, 3),
        edge=[f"embed -> mlp {at}" for at in range(count)], baseline=torch.ones(3),
        circuit="a circuit", **WORDS,
    )  # fmt: skip


EVERY = {"scores": scores, "curve": curve, "study": study, "acdc": acdc, "minimality": minimality}


@pytest.fixture(params=EVERY)
def any_result(request):
    return EVERY[request.param]()


def nodes(axes):
    return {one.get_text() for one in axes.texts if one.get_gid() == "node"}


def arrows(axes):
    return [one for one in axes.patches if isinstance(one, FancyArrowPatch)]


def test_edges_join_heads_and_mlps_and_shared_keys_have_a_node_of_their_own():
    axes = plots.draw(scores()).axes[0]
    assert {"embed", "mlp 0", "kv 1.1", "1.2", "logits"} <= nodes(axes)
    assert "4 strongest" not in axes.get_title(loc="left") and "of 82 edges" in axes.get_title(
        loc="left"
    )
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert "layer 1" in rows and "layer 1, k v" in rows


def test_without_shared_keys_they_belong_to_their_head():
    edges = {"embed -> mlp 0": -2.0, "mlp 0 -> k 1.1": 1.0, "head 1.1 -> logits": -0.5}
    shown = plots.draw(scores(ALONE, edges)).axes[0]
    assert {"embed", "mlp 0", "1.1", "logits"} <= nodes(shown)
    assert not [name for name in nodes(shown) if name.startswith("kv")]


def test_a_study_draws_its_edges_under_its_curve():
    upper, lower = plots.draw(study()).axes
    assert nodes(lower) == {"embed", "mlp 0", "kv 1.1", "1.2", "logits"}
    assert len(arrows(lower)) == 3 + 1  # kv 1.1 is linked to head 1.2, which reads it
    assert "the 3 strongest of 82 edges" in lower.get_title(loc="left")
    assert upper.get_xlabel() == "number of edges that are kept"


def line(axes, label):
    return next(one for one in axes.lines if one.get_label() == label)


@pytest.mark.parametrize("make", [curve, study], ids=["curve", "study"])
def test_the_curve_holds_sizes_shares_and_their_bounds(make):
    axes = plots.draw(make()).axes[0]
    drawn = line(axes, "the first edges of the ranking")
    np.testing.assert_array_equal(drawn.get_xdata(), SIZES)
    np.testing.assert_array_equal(drawn.get_ydata(), SHARE)
    band = next(one for one in axes.collections if isinstance(one, FillBetweenPolyCollection))
    corners = {tuple(point) for point in band.get_paths()[0].vertices}
    for size, value in zip(SIZES.tolist(), SHARE.tolist(), strict=True):
        assert {(size, value - 0.25), (size, value + 0.5)} <= corners
    assert "share of logit diff kept" in axes.get_ylabel()
    assert axes.get_xscale() == "symlog"


def test_circuits_at_random_are_drawn_behind_and_counted():
    axes = plots.draw(study()).axes[0]
    heights = [one.get_ydata() for one in axes.lines if len(one.get_ydata()) == 4]
    for row in study().random.numpy():
        assert any(np.array_equal(row, height) for height in heights)
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "as many edges at random, 2 times" in named and "95 % bounds" in named


def test_what_acdc_kept_is_drawn_and_nothing_else():
    axes = plots.draw(acdc()).axes[0]
    assert nodes(axes) == {"embed", "mlp 0", "logits"}
    assert "all 2 edges" in axes.get_title(loc="left")


def test_minimality_is_bars_with_bounds_filled_where_significant(seen):
    result = minimality()
    axes = plots.draw(result).axes[0]
    order = result.effect.abs().argsort(descending=True).tolist()
    assert seen.bar_names(axes) == [result.edge[at] for at in order]
    np.testing.assert_allclose(seen.bar_lengths(axes), result.effect[order])
    assert seen.filled(axes) == (result.p[order] <= 0.05).tolist()
    bounds = torch.stack([result.low[order], result.high[order]], dim=1)
    np.testing.assert_allclose(seen.drawn_bounds(axes), bounds, rtol=1e-5)


def test_a_curve_without_bounds_still_draws():
    unknown = torch.full((4,), torch.nan)
    assert plots.png(dataclasses.replace(curve(), low=unknown, high=unknown))


def test_a_figure_says_task_model_and_metric_and_is_readable(any_result):
    figure = plots.draw(any_result)
    figure.draw_without_rendering()
    assert "ioi" in figure.get_suptitle() and "tiny" in figure.get_suptitle()
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert any("logit diff" in text.get_text() for text in texts)
    assert min(text.get_fontsize() for text in texts) >= 8


def test_an_axes_of_the_caller_gets_the_main_panel(any_result):
    mine = Figure()
    axes = mine.subplots()
    assert plots.draw(any_result, axes) is mine
    assert axes.lines or axes.patches
    assert "ioi" in axes.get_title(loc="left")


def test_drawing_leaves_pyplot_and_its_settings_alone(any_result):
    before = dict(mpl.rcParams)
    assert plots.png(any_result) == plots.png(any_result)
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs
