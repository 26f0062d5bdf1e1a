"""What is known of planted models holds when their heads are removed instead of ablated."""

import pytest

from workbench import heads, metrics

NAMES = [
    "or-gpt2", "and-llama", "redundant-gpt2", "backup-gpt2", "duplicate-llama",
    "induction-pair-gqa-llama",
]  # fmt: skip


@pytest.fixture(scope="module", params=NAMES)
def planted(request, loaded):
    return loaded(request.param)


def left(model, task, known):
    """The logit difference of each prompt once these heads are removed as `known` says."""
    over = task.corrupt if known.how == "mean" else None
    small = heads.prune(model, known.heads, replace=known.how, over=over)
    assert sum(map(len, heads.kept(small))) == sum(map(len, heads.kept(model))) - len(known.heads)
    return metrics.logit_diff(small(task.clean), task)


def removals(truth):
    return [one for one in truth.known if one.heads and one.how in ("zero", "mean")]


def test_removing_the_heads_of_every_known_number_gives_that_number(planted):
    model, task, truth = planted
    assert removals(truth)
    for known in removals(truth):
        found = left(model, task, known)
        assert known.low <= float(found.min()) and float(found.max()) <= known.high, known


@pytest.mark.parametrize("replace", ["zero", "mean"])
def test_heads_that_stand_in_can_go_one_by_one_and_not_together(loaded, replace):
    for name, roles in (("redundant-gpt2", ["induction"]), ("backup-gpt2", ["first", "backup"])):
        model, task, truth = loaded(name)
        alike = [head for role in roles for head in truth.roles[role]]
        over = task.corrupt if replace == "mean" else None
        before = metrics.logit_diff(model(task.clean), task)
        for head in [*alike, *truth.irrelevant[:2]]:
            small = heads.prune(model, [head], replace=replace, over=over)
            assert (metrics.logit_diff(small(task.clean), task) - before).abs().max() < 1e-3
        small = heads.prune(model, alike, replace=replace, over=over)
        assert float((before - metrics.logit_diff(small(task.clean), task)).min()) > 7.9
        (needed,) = truth.roles["previous token"]
        small = heads.prune(model, [needed], replace=replace, over=over)
        assert float((before - metrics.logit_diff(small(task.clean), task)).min()) > 7.9
