"""Heads that are gone are named when asked for, and are not drawn as if they were there."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hooks import Site, capture, sites
from workbench import heads, metrics, plots

METRIC = metrics.logit_diff
ASKED = {
    "similarity": lambda model, task, some: heads.similarity(model, task, heads=some),
    "substitute": lambda model, task, some: heads.substitute(
        model, task, heads=some, metric=METRIC
    ),
    "shapley": lambda model, task, some: heads.shapley(model, task, some, metric=METRIC),
    "exact_shapley": lambda model, task, some: heads.exact_shapley(
        model, task, some, metric=METRIC
    ),
    "redundancy": lambda model, task, some: heads.redundancy(model, task, some, metric=METRIC),
    "interaction": lambda model, task, some: heads.interaction(model, task, [some], metric=METRIC),
    "backups": lambda model, task, some: heads.backups(model, task, some, metric=METRIC),
    "backups among": lambda model, task, some: heads.backups(
        model, task, (1, 2), among=some, metric=METRIC
    ),
    "self_repair": lambda model, task, some: heads.self_repair(model, task, some),
    "curve": lambda model, task, some: heads.curve(model, task, {"mine": some}, shares=(0.2,)),
    "study": lambda model, task, some: heads.study_redundancy(model, task, kinds={"mine": some}),
    "prune": lambda model, task, some: heads.prune(model, some),
}  # fmt: skip


@pytest.mark.parametrize("analysis", ASKED)
def test_a_removed_head_that_is_asked_for_is_named(analysis, made):
    case = made("Llama")
    message = r"head 1\.0 was removed from Llama without 3 heads: of z 1 there are left 2, 3"
    with pytest.raises(ValueError, match=message):
        ASKED[analysis](case.pruned, case.task, [(0, 2), (1, 0)])


def test_patterns_are_labelled_by_the_numbers_heads_had_at_first(made):
    case = made("Llama")
    seen = capture(case.pruned, case.task.clean, sites.all(case.pruned, "pattern"))
    assert seen.heads(Site("pattern", 1)) == [2, 3]
    words = [str(at) for at in range(int(case.task.clean.lengths[0]))]
    view = plots.attention(seen, words=words)
    assert view.heads == case.left
    with case.zeroed():
        whole = capture(case.model, case.task.clean, [Site("pattern", 1)])
    rows = whole[Site("pattern", 1)][0, 3, : len(words), : len(words)].numpy()
    np.testing.assert_allclose(view.pattern[view.heads.index((1, 3))], rows, atol=1e-5)
    alone = plots.attention(seen, words=words, heads=[(1, 3)])
    np.testing.assert_allclose(alone.pattern[0], rows, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"head 1\.0 is not in this model, .*; there are 0\.0, 0\.2, 0\.3"
    ):
        plots.attention(seen, words=words, heads=[(1, 0)])


def test_heads_without_a_number_are_told_apart_in_figures(made):
    """Grey is a removed head in a map of all, no player in a map of shares."""
    case = made("GPT-2")
    slopes = plots.draw(heads.mask_gradients(case.pruned, case.task, metric=METRIC))
    shares = heads.exact_shapley(case.pruned, case.task, [(0, 1), (1, 1)], metric=METRIC)
    players = plots.draw(shares)
    assert "(grey: removed" in slopes.axes[0].get_title(loc="left")
    assert "(grey: not among the players" in players.axes[0].get_title(loc="left")
    plt.close(slopes)
    plt.close(players)
