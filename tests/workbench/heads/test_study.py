"""The page of all views says what its parts say."""

import pytest
from torch.testing import assert_close

from workbench import heads, metrics, results, tasks


@pytest.fixture(scope="module")
def page(loaded):
    model, task, truth = loaded("backup", prompts=12)
    kinds = {"planted": truth.heads}
    extent = heads.Extent(candidates=2, repaired=99, shares=(0.5,), draws=2)
    return truth, heads.study_redundancy(model, task, kinds=kinds, ablation="zero", extent=extent)


def test_a_backup_is_found_by_pairs_clusters_and_repair_and_not_alone(page):
    truth, found = page
    first, backup = truth.roles["first"][0], truth.roles["backup"][0]
    assert {first, backup} & set(found.alone.significant()) == set()
    assert found.pairs.significant() == [(first, backup)]
    assert set(found.clusters.groups()[0]) == {first, backup}
    assert found.repair.heads == found.candidates
    at = found.repair.heads.index(first)
    assert_close(float(found.repair.repair[at]), 8.0, atol=1e-3, rtol=0)
    assert set(truth.heads) <= set(found.candidates)


def test_the_curve_of_a_page_compares_four_orders_of_which_one_is_chance(page):
    _, found = page
    assert found.curve.orders == [
        "importance", "one of each cluster", "one of each alike", "random",
    ]  # fmt: skip
    assert found.curve.value.shape[1] == 4
    assert bool((found.curve.low <= found.curve.value).all())
    assert bool((found.curve.value <= found.curve.high).all())


def test_a_page_comes_back_from_disk_with_all_its_parts(page, tmp_path):
    _, found = page
    results.save(found, tmp_path / "page.nc")
    again = results.load(heads.HeadRedundancy, tmp_path / "page.nc")
    assert results.digest(again) == results.digest(found)
    assert again.sentence() == found.sentence() and again.headline() == found.headline()
    assert again.table() == found.table()


def test_a_caveat_is_said_once(tiny):
    task = tasks.ioi(tiny, prompts=12, seed=0, corruption="third")
    extent = heads.Extent(candidates=2, repaired=1, shares=(0.5,), draws=2)
    found = heads.study_redundancy(tiny, task, metric=metrics.logit_diff, extent=extent)
    assert found.sentence().count("Caveat:") == 1
