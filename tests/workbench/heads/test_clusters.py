"""Clusters of heads, against partitions that were made by hand."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from workbench import heads, metrics, results
from workbench.heads.clusters import adjusted_rand

SIX = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def blocks(sizes, *, inside=0.9, outside=0.1):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    similarity = torch.where(labels[:, None] == labels, inside, outside)
    return similarity.fill_diagonal_(1.0)


def test_blocks_are_the_clusters_and_the_most_important_of_each_is_kept():
    importance = torch.tensor([1.0, 5.0, 3.0, 2.0, 9.0, 0.0])
    found = heads.cluster(blocks([3, 2, 1]), SIX, source="blocks", importance=importance)
    assert found.groups() == [[(0, 1), (0, 2), (0, 0)], [(1, 1), (1, 0)], [(1, 2)]]
    assert found.keep_one() == [(0, 0), (1, 0), (0, 2)]
    assert "form 2 clusters of two or more" in found.sentence()
    assert np.isnan(found.stability)


def test_heads_that_share_less_than_the_cut_stand_alone_and_all_join_at_the_end():
    alone = heads.cluster(blocks([3, 3], inside=0.4), SIX, source="blocks")
    assert alone.keep_one() == []
    joined = heads.cluster(blocks([3, 3]), SIX, source="blocks", cut=0.95)
    assert len(joined.groups()) == 1


def test_prompts_that_agree_are_stable_and_prompts_that_do_not_are_not():
    same = blocks([3, 3])[..., None].expand(6, 6, 12)
    sure = heads.cluster(same, SIX, source="blocks", resamples=50)
    assert sure.stability == 1
    assert sure.stability_of(SIX[:3]) == 1
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(6, 6, 12, generator=generator)
    noise = (noise + noise.transpose(0, 1)) / 2
    unsure = heads.cluster(noise, SIX, source="noise", resamples=50)
    assert unsure.stability < 0.6


def test_the_same_seed_gives_the_same_bits_and_it_comes_back_from_disk(tmp_path):
    noise = torch.rand(6, 6, 8, generator=torch.Generator().manual_seed(0))
    noise = (noise + noise.transpose(0, 1)) / 2
    one = heads.cluster(noise, SIX, source="noise", resamples=20)
    assert results.digest(one) == results.digest(
        heads.cluster(noise, SIX, source="noise", resamples=20)
    )
    results.save(one, tmp_path / "result.nc")
    assert results.load(heads.Clusters, tmp_path / "result.nc").groups() == one.groups()


def test_the_adjusted_rand_index_by_hand():
    """3 + 3 against 2 + 2 + 2: two pairs shared of 6 and 3; expected 18 / 15, most 4.5."""
    one, other = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    assert adjusted_rand(one, other) == pytest.approx((2 - 1.2) / (4.5 - 1.2))
    assert adjusted_rand(one, one + 7) == 1
    assert adjusted_rand(np.arange(4), np.arange(4)) == 1
    assert adjusted_rand(np.zeros(4), np.zeros(4)) == 1


def test_chance_agrees_with_nothing_on_average():
    generator = np.random.default_rng(0)
    draws = [adjusted_rand(*generator.integers(0, 3, (2, 30))) for _ in range(400)]
    assert abs(np.mean(draws)) < 0.01


def test_a_head_and_its_planted_backup_are_one_cluster(loaded):
    model, task, truth = loaded("backup")
    first, backup = truth.roles["first"][0], truth.roles["backup"][0]
    some = [*truth.irrelevant[:2], backup, first, *truth.roles["previous token"]]
    pairs = heads.redundancy(model, task, some, metric=metrics.logit_diff, ablation="zero")
    found = heads.cluster_redundant(pairs, resamples=20)
    assert set(found.groups()[0]) == {first, backup}
    assert [len(group) for group in found.groups()] == [2, 1, 1, 1]
    assert found.stability == 1


def test_distances_are_one_minus_the_similarity():
    found = heads.cluster(blocks([3, 3]), SIX, source="blocks")
    expected = (1 - blocks([3, 3])).fill_diagonal_(0)
    assert_close(found.distance, expected)


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (blocks([3, 2]), r"a similarity of \(5, 5\) and 5 importances for 6 heads"),
        (blocks([3, 3]) * 2, "similarities lie between 0 and 1, found 0.2 to 1.8"),
        (blocks([3, 3]).triu(), "is not symmetric"),
        (blocks([3, 3]) * torch.nan, "similarities lie between 0 and 1, found nan"),
    ],
)
def test_what_is_no_similarity_of_these_heads_is_refused(similarity, message):
    with pytest.raises(ValueError, match=message):
        heads.cluster(similarity, SIX, source="nothing", importance=torch.zeros(len(similarity)))


@pytest.fixture(scope="module")
def copies(loaded):
    model, task, truth = loaded("duplicate", prompts=24)
    alike = heads.similarity(model, task)
    alone = heads.ablate_each(model, task, metric=metrics.logit_diff)
    return alike, alone, truth.roles


def partition(every, *groups):
    """Numbers of clusters: one for each group, one for each head that is in none."""
    own = [{head} for head in every if not any(head in group for group in groups)]
    return np.array([next(n for n, g in enumerate([*groups, *own]) if one in g) for one in every])


def test_planted_copies_are_one_cluster_by_attention_as_the_adjusted_rand_index_says(copies):
    alike, alone, roles = copies
    found = heads.cluster_alike(alike, alone, by="attention")
    looking = {*roles["induction"], *roles["same pattern"]}
    nowhere = {*roles["orthogonal"], *roles["silent"]}  # attend evenly
    truth = partition(alike.heads, looking, nowhere)
    assert adjusted_rand(found.cluster.numpy(), truth) == 1
    assert any(set(group) == looking for group in found.groups())
    one, other = (alike.heads.index(head) for head in roles["induction"][:2])
    assert float(found.distance[one, other]) == pytest.approx(0, abs=1e-6)
    assert_close(
        found.distance, (alike.divergence / np.log(2)).fill_diagonal_(0), rtol=1e-4, atol=1e-5
    )


def test_planted_copies_are_one_cluster_by_what_they_write(copies):
    alike, alone, roles = copies
    found = heads.cluster_alike(alike, alone, by="output")
    truth = partition(alike.heads, set(roles["induction"]))
    assert adjusted_rand(found.cluster.numpy(), truth) == 1
    assert found.groups()[0][0] in roles["induction"]
