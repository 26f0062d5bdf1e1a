"""Heads that are left have the types they have with the others zeroed."""

import functools

import matplotlib.pyplot as plt
import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening
from hooks import heads as numbering
from workbench import heads, metrics, models, plots, results
from workbench.heads.kinds import measured

METRIC = metrics.logit_diff


def test_types_score_the_heads_that_are_left_as_with_the_others_zeroed(name, types, made):
    case, found = made(name), types(name)
    with case.zeroed():
        seen = functools.partial(
            heads.kinds.attending.attention, case.model, case.task.clean, batch_size=16
        )(["previous token", "duplicate token", "induction", "first token"])
    there = numbering.on_grid(case.model, seen.score.nanmean(2).mT)[~case.missing]
    again = heads.kinds.attending.attention(
        case.pruned, case.task.clean, ["previous token", "duplicate token", "induction",
        "first token"], batch_size=5,
    )  # fmt: skip
    assert again.heads == case.left
    assert_close(again.score.nanmean(2).mT, there, rtol=1e-3, atol=1e-4, equal_nan=True)
    for value in (found.effect, found.p, found.score):
        case.nan_where_gone(value)
    assert found.gone.equal(case.missing)
    assert found.offset[case.missing].tolist() == [-1] * len(case.gone)
    assert set(found.shown) <= set(case.left)


def test_what_heads_say_of_tokens_is_as_in_the_whole_model(name, types, made):
    """It is asked of each head by itself, so that it does not matter which others there are."""
    case, found = made(name), types(name)
    whole, there = heads.kinds.copying.copying(case.model, seed=0)
    assert there == sorted([*case.left, *case.gone])
    for one in whole:
        expected = numbering.on_grid(case.model, one.score.float())
        case.same(found.score[found.types.index(one.type)], expected, atol=1e-3)


def test_what_moves_to_the_answer_is_as_with_the_others_zeroed(made):
    case = made("tiny-gqa")
    with case.zeroed():
        expected = heads.kinds.moving.moved(case.model, case.task, batch_size=5)
    found = heads.kinds.moving.moved(case.pruned, case.task, batch_size=12)
    at = [expected.heads.index(head) for head in case.left]
    assert found.heads == case.left
    assert_close(found.attention, expected.attention[:, at], rtol=1e-3, atol=1e-5)
    assert_close(found.direct, expected.direct[:, at], rtol=1e-3, atol=1e-5)
    assert_close(found.others, expected.others[at], rtol=1e-3, atol=1e-5)
    for head in case.left:
        assert_close(found.carried[head], expected.carried[head], rtol=1e-3, atol=1e-5)


def test_what_is_left_out_of_a_head_is_left_out_of_that_head(made):
    """By hand: z at END less attention to S2 times the value there, for each head's own z."""
    case = made("tiny-gqa")
    task, layer = case.task, 1
    found = heads.kinds.moving.moved(case.pruned, task, batch_size=12)
    got = heads.kinds.moving.inhibition(case.pruned, task, found, memory="1GB", seed=0)
    where = {role: task.positions[role] for role in ("S2", "END")}
    with case.zeroed():
        seen = capture(case.model, task.clean, [Site(s, layer) for s in ("z", "v", "pattern")])
        base = METRIC(case.model(task.clean), task)
    rows, head = torch.arange(len(task)), 3  # reads key-value head 1
    weight = seen[Site("pattern", layer)][rows, head, where["END"], where["S2"]]
    value = seen[Site("v", layer)][rows, where["S2"], 1]
    left = seen[Site("z", layer)].clone()
    left[rows, where["END"], head] -= weight[:, None] * value
    with case.zeroed(), intervening(case.model, {Site("z", 1): edits.replace(left, heads=[head])}):
        without = METRIC(case.model(task.clean), task)
    at = case.left.index((layer, head))
    direct = (found.attention[1] * found.direct[1])[at].mean()
    assert float(got.score[at]) == pytest.approx(float((base - without).mean() - direct), abs=1e-4)


def test_a_pruned_planted_model_keeps_the_types_of_its_heads(types, PLANTED, made):
    for name in PLANTED:
        case, roles = made(name), models.planted.truth(made(name).model).roles
        found = types(name)
        alike = {*roles["induction"], *roles["same pattern"]} - set(case.gone)
        assert alike and set(found.of("induction")) == alike
        assert found.of("previous token") == list(roles["previous token"])


def test_types_of_a_removed_head_are_not_asked(types, made):
    found = types("Llama")
    assert isinstance(found.types_of((0, 0)), list)
    with pytest.raises(ValueError, match=r"head 1\.0 was removed from Llama without 3 heads"):
        found.types_of((1, 0))
    assert "nan" not in found.table(99).replace("of weights: none", "")
    assert not any(f" {layer}.{head} " in found.table(99) for layer, head in made("Llama").gone)


def test_values_go_to_the_heads_that_read_them():
    """Three of a group of four and one of the next, each key-value head marked by its number."""
    values = torch.tensor([10.0, 11.0]).reshape(1, 1, 2, 1)
    some = numbering.LayerHeads((0, 1, 3, 6), group=4)
    assert measured.per_query_head(values, some).flatten().tolist() == [10, 10, 10, 11]
    none = measured.per_query_head(values[:, :, :0], numbering.LayerHeads((), group=4))
    assert none.shape == (1, 1, 0, 1)


def test_the_figure_of_types_hatches_what_is_gone(types):
    figure = plots.draw(types("Llama"))
    (gone,) = [one for one in figure.axes[0].collections if one.get_gid() == "gone"]
    assert len(gone.get_paths()) == 3
    assert "removed" in figure.axes[0].get_title(loc="left")
    plt.close(figure)


def test_types_of_a_pruned_model_come_back_from_a_file(types, tmp_path):
    found = types("tiny-gqa")
    results.save(found, tmp_path / "found.nc")
    again = results.load(heads.HeadTypes, tmp_path / "found.nc")
    assert again.gone.equal(found.gone) and again.named() == found.named()
