"""What effects, sweeps, attributions, paths and graphs of a pruned model say of heads."""

import matplotlib.pyplot as plt
import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening
from workbench import effects, heads, metrics, patching, plots, results


def test_ablating_each_is_as_in_the_model_whose_other_heads_are_zeroed(
    model, pruned, task, zeroed, GONE
):
    found = heads.ablate_each(pruned, task, metric=metrics.logit_diff)
    assert found.effect.shape == (2, 4)
    gone = torch.zeros(2, 4, dtype=torch.bool)
    gone[tuple(zip(*GONE, strict=True))] = True
    for name in ("effect", "low", "high", "p"):
        assert getattr(found, name).isnan().equal(gone)
    for layer, head in ((0, 0), (0, 3), (1, 2), (1, 3)):
        with intervening(model, zeroed(model, [*GONE, (layer, head)])):
            expected = metrics.logit_diff(model(task.clean), task)
        assert_close(found.per_prompt[layer, head] + found.baseline, expected, rtol=1e-4, atol=1e-4)


def test_removed_heads_are_neither_counted_nor_ranked_nor_tested(pruned, task, GONE):
    found = heads.ablate_each(pruned, task, metric=metrics.logit_diff)
    assert len(found.most_helpful(8)) == len(found.least_helpful(8)) == 4
    assert not set(found.most_helpful(8)) & set(GONE)
    assert found.sentence().startswith("Of 4 heads of tiny-gqa without 4 heads")
    assert "nan" not in found.table() and "nan" not in str(found.headline())
    # Of one cell alone the corrected p-value is the uncorrected one, so the family is of four.
    from workbench import statistics

    there = ~found.effect.isnan()
    four = statistics.permutation_test(found.per_prompt[there], seed=0).corrected
    assert_close(found.p[there], four.float(), rtol=0, atol=0)


def test_a_removed_head_is_grey_in_the_figure_and_no_bar(pruned, task):
    found = heads.ablate_each(pruned, task, metric=metrics.logit_diff)
    figure = plots.draw(found)
    left, right = figure.axes[:2]
    assert "grey: removed" in left.get_title(loc="left")
    assert left.images[0].get_array().mask.sum() == 4
    names = [label.get_text() for label in right.get_yticklabels()]
    assert sorted(names) == ["0.0", "0.3", "1.2", "1.3"]
    plt.close(figure)


def test_results_with_removed_heads_come_back_from_a_file(pruned, task, tmp_path):
    found = heads.ablate_each(pruned, task, metric=metrics.logit_diff)
    results.save(found, tmp_path / "found.nc")
    again = results.load(heads.HeadEffects, tmp_path / "found.nc")
    assert_close(again.effect, found.effect, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("stream", ["z", "k"])
def test_sweeps_keep_their_width(model, pruned, task, stream):
    found = patching.sweep(pruned, task, stream, metric=metrics.logit_diff)
    there = ~found.effect.isnan()
    expected = {
        "z": [[True, False, False, True], [False, False, True, True]],
        "k": [[True, True], [False, True]],
    }
    assert there.tolist() == expected[stream]
    assert len(found.strongest(8)) == int(there.sum())
    assert f"of {int(there.sum())} places" in found.sentence()
    assert found.places == [str(head) for head in range(len(expected[stream][0]))]
    plt.close(plots.draw(found))


def test_a_sweep_of_a_whole_model_under_the_same_zeros_gives_the_same_numbers(
    model, pruned, task, zeroed, GONE
):
    found = patching.sweep(pruned, task, "z", metric=metrics.logit_diff, direction="noise")
    gone = zeroed(model, GONE)
    with intervening(model, gone):
        values = capture(model, task.corrupt, [Site("z", 1)])[Site("z", 1)]
        baseline = metrics.logit_diff(model(task.clean), task)
    with intervening(
        model, {**gone, Site("z", 1): [gone[Site("z", 1)], edits.replace(values, heads=[3])]}
    ):
        expected = metrics.logit_diff(model(task.clean), task) - baseline
    assert_close(found.per_prompt[1, 3], expected, rtol=1e-4, atol=1e-4)


def test_attribution_names_heads_by_their_first_numbers(model, pruned, task):
    sites = [Site("z", 0), Site("z", 1)]
    found = effects.attribute(
        pruned, task, sites, metric=metrics.logit_diff, source="zero", summed=["pos"]
    )
    assert found[Site("z", 0)].shape == (4, 6)
    assert found[Site("z", 0)][:, 0].isnan().tolist() == [False, True, True, False]
    assert {(node.site.layer, node.at["head"]) for node in found.strongest(99)} == {
        (0, 0), (0, 3), (1, 2), (1, 3),
    }  # fmt: skip


def test_direct_attribution_still_adds_up(pruned, task):
    from workbench import lens

    found = lens.direct_attribution(pruned, task)
    assert found.effect.isnan().sum() == 4
    parts = found.attention.sum() + found.mlp.sum() + found.embed_per_prompt.mean()
    assert_close(parts + found.constant.mean(), found.total.mean(), rtol=1e-3, atol=1e-3)


def test_a_path_from_a_removed_head_is_refused_and_the_map_is_nan_there(pruned, task, GONE):
    with pytest.raises(ValueError, match=r"head 0\.1 was removed from tiny-gqa without 4 heads"):
        patching.path(pruned, task, [(Site("z", 0), 1), "logits"], metric=metrics.logit_diff)
    found = patching.paths(pruned, task, to="logits", metric=metrics.logit_diff)
    assert found.effect.isnan().nonzero().tolist() == [list(head) for head in GONE]
    assert not found.mlp.isnan().any()
    assert "Of 4 heads" in found.sentence() and "nan" not in found.table()
    plt.close(plots.draw(found))


def test_the_graph_of_a_pruned_model_is_refused_in_heads_and_given_in_layers(pruned):
    with pytest.raises(ValueError, match='detail="layers"'):
        patching.Graph.of(pruned)
    assert patching.Graph.of(pruned, detail="layers").layers == 2
