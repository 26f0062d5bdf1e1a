"""Questions that would be answered with nothing, or with something else, are refused."""

import pytest

from hooks import capture, sites
from workbench import corpora, heads, metrics, plots, tasks
from workbench.heads import PruningCurve
from workbench.heads.naming import every

DIFF = metrics.logit_diff


@pytest.fixture(scope="module")
def task(tiny_gqa):
    return tasks.ioi(tiny_gqa, prompts=12, seed=0)


@pytest.fixture(scope="module")
def text(tiny_gqa):
    return corpora.prose(tiny_gqa, passages=4)


def test_text_has_no_counterfactual(tiny_gqa, task, text):
    orders = {"first": every(tiny_gqa)}
    with pytest.raises(ValueError, match="text has no pairs: take 'mean', 'zero' or 'resample'"):
        heads.curve(tiny_gqa, task, orders, text=text, removal="counterfactual", shares=(0.25,))
    with pytest.raises(ValueError, match="text has no pairs"):
        heads.study_redundancy(tiny_gqa, task, text=text, ablation="counterfactual")


def test_what_is_not_known_is_not_affordable(tiny_gqa, task, text):
    orders = {"first": every(tiny_gqa)}
    found = heads.curve(tiny_gqa, task, orders, text=text, shares=(0.25, 0.5), draws=0)
    assert isinstance(found, PruningCurve)
    assert found.largest(1e9, measure=found.measures[0], order="first") == 0.5
    found.change_low[...] = float("nan")
    assert found.largest(1e9, measure=found.measures[0], order="first") == 0.0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"steps": 10_000}, "steps=10000: .* takes .* tokens in all"),
        ({"rounds": 0}, "rounds=0: there is nothing to time"),
        ({"batch_sizes": ()}, r"batch_sizes=\(\): give sizes from 1 on"),
    ],
)
def test_sizes_of_which_nothing_could_be_timed_are_refused(tiny_gqa, asked, said):
    with pytest.raises(ValueError, match=said):
        heads.costs(tiny_gqa, tiny_gqa, **asked)


def test_clusters_name_what_they_cannot_take(tiny_gqa, task):
    found = heads.redundancy(tiny_gqa, task, [(0, 1), (1, 2), (1, 3)], metric=DIFF)
    with pytest.raises(
        ValueError, match=r"head 9\.9 was not clustered; there are 0\.1, 1\.2, 1\.3"
    ):
        heads.cluster_redundant(found).stability_of([(9, 9), (0, 1)])
    with pytest.raises(ValueError, match="resamples=0: a stability takes at least one"):
        heads.cluster_redundant(found, resamples=0)
    with pytest.raises(ValueError, match="cut=-1"):
        heads.cluster_redundant(found, cut=-1.0)


def test_attention_takes_heads_and_titles_as_they_are_written(
    tiny_gqa, task, tmp_path, unchecked_types
):
    seen = capture(tiny_gqa, task.clean, sites.all(tiny_gqa, "pattern"))
    words = [str(at) for at in range(int(task.clean.lengths[0]))]
    for wrong in ([3], (0, 1), ["01"]):
        with pytest.raises(TypeError, match="is no head: give a list of"):
            plots.attention(seen, words=words, heads=wrong)
    view = plots.attention(seen, words=words, heads=[(0, 1)], title="$a_$ costs $5")
    view.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
