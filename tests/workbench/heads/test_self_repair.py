"""What comes back when a head is removed, where it was planted how much and from where."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits, intervening
from workbench import heads, lens, metrics, models, results, tasks
from workbench.models import twins
from workbench.models.planted.redundancy import normed


def repaired(model, task, some, **how):
    return heads.self_repair(model, task, some, **{"ablation": "zero"} | how)


def test_a_planted_backup_replaces_all_of_it(loaded):
    model, task, truth = loaded("backup")
    first, backup = truth.roles["first"][0], truth.roles["backup"][0]
    found = repaired(model, task, [first])
    assert_close(found.direct, torch.tensor([-8.0]), atol=1e-4, rtol=0)
    assert_close(found.total, torch.tensor([0.0]), atol=1e-4, rtol=0)
    assert_close(found.share[0], torch.tensor([0.0, 8.0, 0.0]), atol=1e-4, rtol=0)
    assert_close(found.restored, torch.ones(1), atol=1e-4, rtol=0)
    (helper, much), (_, next_most) = found.strongest_helpers(first, 2)
    assert helper == backup
    assert much == pytest.approx(8, abs=1e-4) and next_most == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("at", ["last", "all"])
def test_norm_and_backup_each_give_back_what_the_formula_says(loaded, at):
    """The first head writes 2, a helper 1, the backup 1; the norm divides by what is there."""
    model, task, truth = loaded("self-repair")
    first, helper = truth.roles["first"][0], truth.roles["helper"][0]
    width = model.cfg.d_model
    each = normed(2.0, 1.0, width=width) / 3  # one unit, by the scale as it was
    found = repaired(model, task, [first, helper], at=at)
    assert_close(found.direct, torch.tensor([-2 * each, -each]), atol=1e-4, rtol=0)
    total = [normed(1.0, 1.0, width=width), normed(2.0, 0.0, width=width)]
    total = torch.tensor(total) - normed(2.0, 1.0, width=width)
    assert_close(found.total, total, atol=1e-4, rtol=0)
    assert_close(found.share[:, 1], torch.tensor([each, 0.0]), atol=1e-4, rtol=0)
    assert_close(found.share[:, 2], torch.zeros(2), atol=1e-4, rtol=0)
    assert_close(found.share[:, 0], total - found.direct - found.share[:, 1], atol=1e-4, rtol=0)
    assert (found.share[:, 0] > 0.1).all()


@pytest.mark.parametrize("architecture", ["native", "GPT-2", "Llama", "Qwen 3", "GPT-NeoX"])
@pytest.mark.parametrize("at", ["last", "all"])
def test_shares_add_up_and_the_total_is_what_ablation_does(architecture, at):
    model, _ = twins.make(architecture, seed=1)
    task = drawn(model)
    found = repaired(model, task, [(0, 1), (1, 2)], at=at)
    added = found.direct_per_prompt + found.share_per_prompt.sum(dim=1)
    assert_close(found.total_per_prompt, added, atol=1e-5, rtol=1e-4)
    assert_close(found.by_head.sum(dim=(1, 2)), found.share[:, 1], atol=1e-5, rtol=1e-4)
    assert_close(found.by_mlp.sum(dim=1), found.share[:, 2], atol=1e-5, rtol=1e-4)
    where = task.clean.last if at == "last" else None
    with intervening(model, {Site("z", 0): edits.zero(heads=[1], positions=where)}):
        ablated = metrics.logit_diff(model(task.clean), task)
    change = ablated - metrics.logit_diff(model(task.clean), task)
    assert_close(found.total_per_prompt[0], change, atol=1e-5, rtol=1e-3)


def test_the_direct_effect_is_that_of_direct_attribution():
    model, _ = twins.make("native", seed=1)
    task = drawn(model)
    some = [(0, 1), (1, 0)]
    found = repaired(model, task, some)
    written = lens.direct_attribution(model, task).head_per_prompt
    for row, head in enumerate(some):
        assert_close(found.direct_per_prompt[row], -written[head], atol=1e-5, rtol=1e-4)


def test_what_stands_before_the_removed_head_has_no_share():
    model, _ = twins.make("native", seed=1)
    found = repaired(model, drawn(model), [(1, 2)], at="all")
    assert found.by_head_per_prompt[0, 0].abs().max() == 0
    assert found.by_head_per_prompt[0, 1].abs().max() == 0  # its neighbours read what it read
    assert found.by_mlp[0, 0] == 0
    assert found.by_mlp[0, 1] != 0


def drawn(model):
    from hooks import Prompts

    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(5, 60, (5, 9), generator=generator)
    prompts = Prompts(tokens, torch.tensor([9, 7, 9, 5, 8]))
    ids = torch.arange(5)[:, None]
    return tasks.Task("drawn", prompts, prompts, ids + 5, ids + 25, {}, ids[:, 0])


@pytest.mark.slow
def test_models_without_meaning_show_repair_no_more_often_than_the_level_says():
    """Answer and foil are drawn anew for each prompt, so no repair has a side to take."""
    wrong = 0
    for seed in range(24):
        model, _ = twins.make("native", seed=seed)
        generator = torch.Generator().manual_seed(seed)
        task = drawn(model)
        tokens = torch.randint(5, 60, (16, 8), generator=generator)
        pair = torch.stack([torch.randperm(55, generator=generator)[:2] + 5 for _ in range(16)])
        prompts = type(task.clean)(tokens, torch.full((16,), 8))
        group = torch.zeros(16, dtype=torch.long)
        task = tasks.Task("drawn", prompts, prompts, pair[:, :1], pair[:, 1:], {}, group)
        found = repaired(model, task, [(0, 0), (0, 1), (1, 2)])
        wrong += bool((found.p <= 0.05).any())
    assert wrong <= 4


def test_a_result_comes_back_from_disk_and_says_what_was_found(loaded, tmp_path):
    model, task, truth = loaded("self-repair")
    found = repaired(model, task, truth.heads)
    results.save(found, tmp_path / "result.nc")
    again = results.load(heads.SelfRepair, tmp_path / "result.nc")
    assert again.sentence() == found.sentence() and again.headline() == found.headline()
    first = truth.roles["first"][0]
    assert f"Removing head {first[0]}.{first[1]} " in found.sentence()
    assert len(found.table().splitlines()) == 1 + len(truth.heads)


def test_what_cannot_be_split_is_refused(tiny):
    task = tasks.ioi(tiny, prompts=4, seed=0)
    with pytest.raises(ValueError, match=r"there is no head 9\.0"):
        repaired(tiny, task, [(9, 0)])
    with pytest.raises(ValueError, match=r"head 0\.0 was given twice"):
        repaired(tiny, task, [(0, 0), (0, 0)])
    with pytest.raises(ValueError, match="at least two"):
        repaired(tiny, task[0], [(0, 0)])
    with pytest.raises(KeyError, match=r"removed were 0\.0"):
        repaired(tiny, task, [(0, 0)]).strongest_helpers((1, 1))
    sets = tasks.greater_than(models.load("tiny-gqa"), prompts=4, seed=0)
    with pytest.raises(ValueError, match="sets of answers or foils"):
        repaired(models.load("tiny-gqa"), sets, [(0, 0)])
    gemma, _ = twins.make("Gemma 3")
    with pytest.raises(ValueError, match="have no output of their own"):
        repaired(gemma, drawn(gemma), [(0, 0)])
    capped, _ = twins.make("Gemma 2")
    with pytest.raises(ValueError, match="something stands between it and the logits"):
        repaired(capped, drawn(capped), [(0, 0)])


def test_an_unknown_place_is_refused(tiny, unchecked_types):
    task = tasks.ioi(tiny, prompts=4, seed=0)
    with pytest.raises(ValueError, match="at the 'last' position or at 'all'"):
        repaired(tiny, task, [(0, 0)], at="first")
