"""Which heads of a model are alike."""

import pytest
import torch
from torch.testing import assert_close

from workbench import heads, models, results, statistics, tasks

DUPLICATES = [
    "planted/duplicate", "planted/duplicate-gpt2", "planted/duplicate-llama",
    "planted/duplicate-gqa", "planted/duplicate/2",
]  # fmt: skip


def pairs_of(found, *groups):
    """Every pair's place, and whether both of its heads are in one of the groups."""
    a, b = torch.triu_indices(len(found.heads), len(found.heads), offset=1)
    members = [
        any({found.heads[int(x)], found.heads[int(y)]} <= group for group in groups)
        for x, y in zip(a, b, strict=True)
    ]
    return (a, b), torch.tensor(members)


@pytest.mark.parametrize("name", DUPLICATES)
def test_planted_copies_are_the_most_alike_by_every_measure_that_should_see_them(name):
    model = models.load(name)
    roles = models.planted.truth(model).roles
    found = heads.similarity(model, tasks.planted(model, prompts=24, seed=1))
    copies = set(roles["induction"])
    looking, saying = copies | set(roles["same pattern"]), copies | set(roles["same output"])
    before = set(roles["previous token"])
    # The one that says the same looks by position, as the previous-token head does, and that one
    # reads the same values: tokens.
    by_place = before | set(roles["same output"])
    aside = set(roles["orthogonal"]) | set(roles["same pattern"])  # all write where none reads
    alike = {
        "attention": [looking], "output": [copies], "writes": [saying, aside],
        "queries": [looking, by_place],
    }  # fmt: skip
    if "gqa" not in name:  # there, heads of a group share values and keys whatever they do
        alike |= {"values": [saying | before], "keys": [looking, by_place]}
    for by, truth in alike.items():
        at, members = pairs_of(found, *truth)
        scores = found.alike(by)[at]
        there = ~scores.isnan()
        assert statistics.auroc(scores[there], members[there]) == 1.0, by
    one, other, rotated = roles["induction"]
    for head in (other, rotated):
        assert found.of(one, head, by="attention") == pytest.approx(0, abs=1e-6)
        assert found.of(one, head, by="output") == pytest.approx(1, abs=1e-5)
        for by in ("writes", "values", "queries", "keys"):
            assert found.of(one, head, by=by) == pytest.approx(found.of(one, one, by=by), abs=1e-4)


def test_copies_stand_beyond_what_chance_gives():
    model = models.load("planted/duplicate")
    roles = models.planted.truth(model).roles
    found = heads.similarity(model, tasks.planted(model, prompts=24, seed=1))
    looking = {*roles["induction"], *roles["same pattern"]}
    beyond = found.beyond_chance("attention")
    assert all(set(pair) <= looking for pair in beyond[:6]) and len(beyond) >= 6
    for by in heads.MEASURES:
        best = found.most_alike(10, by=by)
        one, other, _ = sorted(roles["induction"])
        assert (one, other) in found.beyond_chance(by)
        assert len(best) == 10


def test_a_head_is_itself(found, model):
    assert_close(found.divergence.diagonal(), torch.zeros(8), rtol=0, atol=1e-6)
    assert_close(found.cka.diagonal(), torch.ones(8), rtol=0, atol=1e-5)
    for overlap in (found.writes, found.values, found.queries, found.keys):
        assert_close(overlap.diagonal(), torch.full((8,), 8.0), rtol=0, atol=1e-4)


def test_every_measure_is_symmetric(found):
    for by in heads.MEASURES:
        assert_close(found.alike(by), found.alike(by).T, rtol=0, atol=1e-5)


def test_heads_of_a_group_share_values_and_keys(found):
    assert found.group == [0, 0, 1, 1] * 2
    assert found.of((1, 0), (1, 1), by="values") == pytest.approx(8, abs=1e-4)
    assert found.of((1, 2), (1, 3), by="keys") == pytest.approx(8, abs=1e-4)
    assert found.of((1, 1), (1, 2), by="values") < 5


def test_how_prompts_are_batched_changes_nothing(model, task, found):
    small = heads.similarity(model, task, batch_size=1, seed=0)
    assert_close(small.divergence, found.divergence, rtol=1e-5, atol=1e-6)
    assert_close(small.cka, found.cka, rtol=1e-4, atol=1e-5)


def test_some_heads_are_compared_as_all_are(model, task, found):
    some = heads.similarity(model, task, heads=[(1, 2), (0, 1)], seed=0)
    assert some.names == ["1.2", "0.1"]
    for by in heads.MEASURES:
        expected = found.of((1, 2), (0, 1), by=by)
        assert some.of((1, 2), (0, 1), by=by) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_order_puts_copies_side_by_side():
    model = models.load("planted/duplicate")
    found = heads.similarity(model, tasks.planted(model, prompts=16, seed=1))
    places = sorted(
        found.order().index(found.heads.index(head))
        for head in models.planted.truth(model).roles["induction"]
    )
    assert places[2] - places[0] == 2


def test_similarity_says_what_it_found_and_comes_back_from_a_file(found, tmp_path):
    assert "Of 8 heads of tiny-gqa on ioi" in found.sentence()
    assert len(found.table(4).splitlines()) == 5
    assert set(found.headline()) == {f"alike by {by}" for by in heads.MEASURES}
    results.save(found, tmp_path / "similarity.nc")
    again = results.load(heads.HeadSimilarity, tmp_path / "similarity.nc")
    assert results.digest(again) == results.digest(found) and again.heads == found.heads


def test_heads_that_cannot_be_compared_are_refused(model, task, found):
    with pytest.raises(ValueError, match=r"there is no head 2\.0: layers are 0 to 1, heads 0 to 3"):
        heads.similarity(model, task, heads=[(0, 0), (2, 0)])
    with pytest.raises(ValueError, match=r"head 0\.1 was given twice"):
        heads.similarity(model, task, heads=[(0, 1), (0, 1)])
    with pytest.raises(ValueError, match="similarity needs at least two"):
        heads.similarity(model, task, heads=[(0, 1)])
    with pytest.raises(ValueError, match=r"head 3\.0 was not compared"):
        found.of((3, 0), (0, 0))
    with pytest.raises(Exception, match=r"no measure|Type-check"):
        found.alike("looks")
