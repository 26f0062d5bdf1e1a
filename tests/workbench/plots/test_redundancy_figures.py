"""What the figures of redundancy show is what the results hold."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from workbench import corpora, heads, metrics, models, plots, tasks
from workbench.models import planted

LOGIT = metrics.logit_diff


@pytest.fixture(scope="module")
def studied():
    model = models.load("planted/backup")
    return model, tasks.planted(model, prompts=12, seed=1), planted.truth(model)


def artists(figure, gid):
    return [one for axes in figure.axes for one in axes.findobj() if one.get_gid() == gid]


def test_the_map_of_pairs_shows_every_interaction_and_the_bars_the_strongest(studied):
    model, task, truth = studied
    found = heads.redundancy(model, task, truth.heads, metric=LOGIT, ablation="zero")
    figure = plots.draw(found)
    left, right = figure.axes[:2]
    shown = np.ma.filled(left.images[0].get_array(), np.nan)
    assert_allclose(shown, found.interaction.numpy(), equal_nan=True)
    assert [label.get_text() for label in left.get_xticklabels()] == ["0.3", "1.1", "2.0"]
    assert right.patches[0].get_width() == pytest.approx(-8, abs=1e-3)
    assert right.get_yticklabels()[0].get_text() == "1.1, 2.0"


def test_the_tree_is_cut_where_the_result_says_and_blue_below(studied):
    model, task, truth = studied
    pairs = heads.redundancy(model, task, truth.heads, metric=LOGIT, ablation="zero")
    found = heads.cluster_redundant(pairs, resamples=10)
    figure = plots.draw(found)
    (cut,) = artists(figure, "cut")
    assert list(cut.get_xdata()) == [0.5, 0.5]
    shared = figure.axes[1].images[0].get_array()
    assert sorted(np.unique(shared)) == [0, 1]
    alone = heads.cluster(torch.eye(3), truth.heads, source="nothing")
    assert len(plots.draw(alone).axes) == 1


def test_backups_and_sets_show_what_was_measured(studied):
    model, task, truth = studied
    first, backup = truth.roles["first"][0], truth.roles["backup"][0]
    found = heads.backups(model, task, first, metric=LOGIT, ablation="zero")
    figure = plots.draw(found)
    shown = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    assert_allclose(shown, found.map[0].numpy(), equal_nan=True)
    assert figure.axes[1].patches[0].get_width() == pytest.approx(float(found.growth[0]))
    sets = heads.interaction(model, task, [[first, backup]], metric=LOGIT, ablation="zero")
    figure = plots.draw(sets)
    (diamonds,) = artists(figure, "sum")
    assert_allclose(diamonds.get_xdata(), sets.sum.numpy())
    assert figure.axes[0].patches[0].get_width() == pytest.approx(float(sets.effect[0]))


def test_shares_are_stacked_to_their_sum_on_both_sides_of_zero():
    model = models.load("planted/self-repair")
    task, truth = tasks.planted(model, prompts=4, seed=1), planted.truth(model)
    found = heads.self_repair(model, task, truth.heads, ablation="zero")
    figure = plots.draw(found)
    right = figure.axes[1]
    widths = sum(bar.get_width() for bar in right.patches)
    assert widths == pytest.approx(float(found.repair.sum()), abs=1e-4)
    (diamonds,) = artists(figure, "repair")
    assert_allclose(diamonds.get_xdata(), found.repair.numpy())


def test_every_order_has_its_curve_in_every_panel(tiny):
    task = tasks.ioi(tiny, prompts=4, seed=0)
    order = [(layer, head) for layer in range(2) for head in range(4)]
    found = heads.curve(
        tiny, task, {"mine": order}, text=corpora.prose(tiny, passages=2), shares=(0.5, 1.0)
    )
    figure = plots.draw(found)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "logit diff (nats)", "accuracy (fraction)", "mean logprob of text (nats per token)",
    ]  # fmt: skip
    for at, line in enumerate(artists(figure, "mine")):
        assert_allclose(line.get_ydata(), found.value[at, 0].numpy())
    assert len(artists(figure, "random")) == 3
    names = [text.get_text() for text in figure.axes[0].texts]
    assert any(name.startswith("mine (") for name in names)


def test_a_page_has_eight_panels_and_each_result_a_panel_of_its_own(tiny):
    from matplotlib.figure import Figure

    task = tasks.ioi(tiny, prompts=12, seed=0, corruption="third")
    extent = heads.Extent(candidates=2, repaired=1, shares=(0.5,), draws=2)
    found = heads.study_redundancy(tiny, task, extent=extent)
    figure = plots.draw(found)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title[0] for title in titles if title[1:3] == "  "] == list("abcdefgh")
    parts = (
        found, found.alone, found.types, found.alike, found.pairs, found.clusters,
        found.takes_over, found.repair, found.curve,
    )  # fmt: skip
    for part in parts:
        ax = Figure().subplots()
        assert plots.draw.dispatch(type(part))(part, ax) is ax.figure
