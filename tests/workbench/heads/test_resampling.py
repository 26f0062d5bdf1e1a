"""Whatever ablates heads by other prompts' values: its own seed draws which prompts."""

import pytest

from workbench import heads, metrics, tasks

DIFF = metrics.logit_diff


@pytest.fixture(scope="module")
def task(tiny_gqa):
    return tasks.ioi(tiny_gqa, prompts=12, seed=0)


SEEDED = {
    "interaction": lambda model, task, seed: heads.interaction(
        model, task, [[(0, 1), (1, 2)]], metric=DIFF, ablation="resample", seed=seed
    ).effect,
    "redundancy": lambda model, task, seed: heads.redundancy(
        model, task, [(0, 1), (1, 2)], metric=DIFF, ablation="resample", seed=seed
    ).alone,
    "self_repair": lambda model, task, seed: heads.self_repair(
        model, task, [(0, 1)], ablation="resample", seed=seed
    ).total,
    "curve": lambda model, task, seed: heads.curve(
        model, task, {"first": [(0, 1), (1, 2), (0, 0), (1, 1)]}, removal="resample",
        shares=(0.25, 0.5), draws=0, measures=[DIFF], seed=seed,
    ).change,
    "backups": lambda model, task, seed: heads.backups(
        model, task, (0, 1), metric=DIFF, ablation="resample", most=1, seed=seed
    ).map,
}  # fmt: skip


@pytest.mark.parametrize("analysis", SEEDED)
def test_the_seed_draws_what_is_resampled(tiny_gqa, task, analysis):
    one, again, other = (SEEDED[analysis](tiny_gqa, task, seed) for seed in (0, 0, 1))
    assert one.nan_to_num().equal(again.nan_to_num())
    assert not one.nan_to_num().allclose(other.nan_to_num(), atol=1e-6)
