from dataclasses import replace

import pytest
import torch

from workbench import heads, metrics, models, plots, results, tasks

FAST = heads.Descent(steps=14, rate=1.0, prompts=8)


def by_hand(opened, shut, lost: float = 4.0) -> heads.CausalGating:
    seeds = len(opened)
    return heads.CausalGating(
        opened=torch.tensor(opened),
        shut=torch.tensor(shut),
        metric_opened=torch.full((seeds, 2), 4.0),
        metric_shut=torch.full((seeds, 2), lost),
        metric_sufficient=torch.full((seeds, 2), 4.0),
        baseline=torch.full((2,), 4.0),
        floor=torch.zeros(2),
        penalty=0.1, ablation="zero", metric="logit_diff", unit="nats", task="by hand",
        task_digest="", model="a model", model_digest="",
    )  # fmt: skip


def test_roles_by_hand():
    # Facilitates in both seeds; irrelevant in both; interferes in both; facilitates in one only.
    opened = [[[0.99, 0.99], [0.01, 0.99]], [[0.99, 0.99], [0.02, 0.99]]]
    shut = [[[0.9, 0.01], [0.01, 0.9]], [[0.8, 0.02], [0.01, 0.05]]]
    found = by_hand(opened, shut)
    assert found.necessary() == [(0, 0)]
    assert found.sufficient(0) == [(0, 0), (1, 1)] and found.sufficient(1) == [(0, 0)]
    assert found.interfering() == [(1, 0)]
    assert found.roles[:, 0, 1].tolist() == [1, 1] and found.roles[:, 1, 0].tolist() == [2, 2]
    assert found.stability.tolist() == [[1, 1], [1, 0.5]]
    assert found.ranked() == [(0, 0), (1, 1), (0, 1), (1, 0)]
    assert float(found.score[1, 0]) == pytest.approx(-0.975)
    assert "1 are necessary for by hand (0.0) and 1 interfere" in found.sentence()
    assert "1 to 2 suffice in one" in found.sentence() and not found.lost
    assert "interfering" in found.table(1) and "facilitating" in found.table(2)


def test_a_fit_that_lost_the_task_is_said_so():
    found = by_hand([[[0.99]], [[0.99]]], [[[0.01]], [[0.01]]], lost=1.0)
    assert found.lost == [0, 1]
    assert "In 2 of them the fit lost the task." in found.sentence()


def test_both_heads_of_an_and_are_necessary_and_suffice_and_the_others_are_irrelevant(tmp_path):
    model = models.load("planted/and")
    task, truth = tasks.planted(model, prompts=6, seed=0), models.planted.truth(model)
    found = heads.causal_gating(model, task, metric=metrics.logit_diff, seeds=1, descent=FAST)
    assert set(found.necessary()) == set(truth.heads) == set(found.sufficient(0))
    assert found.interfering() == []
    for head in truth.irrelevant:
        assert float(found.opened[(slice(None), *head)].min()) > 0.98
        assert float(found.shut[(slice(None), *head)].max()) < 0.02
        assert abs(float(found.score[head])) < 0.02
    assert float((found.metric_sufficient - found.baseline).abs().max()) < 1e-3
    assert found.lost == []
    results.save(found, tmp_path / "gating.nc")
    again = results.load(heads.CausalGating, tmp_path / "gating.nc")
    assert results.digest(again) == results.digest(found)
    assert plots.png(found)[:4] == b"\x89PNG"


@pytest.mark.slow
def test_heads_that_say_the_wrong_thing_interfere():
    model = models.load("planted/duplicate")
    task, truth = tasks.planted(model, prompts=4, seed=0), models.planted.truth(model)
    wrong = replace(task, answer=task.foil, foil=task.answer)
    found = heads.causal_gating(model, wrong, metric=metrics.logit_diff, seeds=1, descent=FAST)
    assert set(found.interfering()) == set(truth.roles["induction"])
    assert all(float(found.score[head]) < -0.9 for head in truth.roles["induction"])
    assert "Caveat" in found.sentence()


def test_without_pressure_there_is_nothing_to_learn_from():
    model = models.load("planted/and")
    task = tasks.planted(model, prompts=4, seed=0)
    with pytest.raises(ValueError, match="the pressure must be above 0"):
        heads.causal_gating(model, task, metric=metrics.logit_diff, penalty=0.0)


@pytest.mark.slow
def test_four_learned_induction_heads_share_the_load_alike_from_every_seed():
    model = models.load("planted/induction-4")
    task = tasks.planted(model, prompts=16, seed=0)
    found = heads.causal_gating(
        model, task, metric=metrics.answer_logprob, seeds=3,
        descent=heads.Descent(steps=80, rate=0.2),
    )  # fmt: skip
    assert float(found.opened.min()) > 0.98  # no head interferes
    assert float((found.shut - found.shut[:1]).abs().max()) < 0.05
    shared = found.shut[0, 1]
    assert int((shared > 0.1).sum()) >= 2 and float(shared.max()) < 0.9  # no winner takes it all
    assert int((found.shut[0] < 0.02).sum()) >= 1
    assert float(found.stability.min()) == 1 and found.lost == []
