import sys
from dataclasses import dataclass

import pytest
import torch

from hooks import Site, replay
from workbench import effects, heads, metrics, models, results, runs, tasks


@dataclass(frozen=True)
class Config:
    seed: int = 0


def study(config: Config) -> heads.HeadEffects:
    model = models.load("tiny")
    task = tasks.ioi(model, prompts=4, seed=config.seed)
    return heads.ablate_each(model, task, metric=metrics.logit_diff, seed=config.seed)


def test_an_interrupted_run_goes_on_where_it_stopped_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["workbench.effects.exact"], "_CELLS_A_BATCH", 2)
    whole = runs.record(study, Config(), root=tmp_path / "whole")
    carried_out = replay.run
    batches = []

    def stopped_after_two(plan, batch, *rest, **named):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(list(batch))
        return carried_out(plan, batch, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(replay, "run", stopped_after_two)
        with pytest.raises(KeyboardInterrupt):
            runs.record(study, Config(), root=tmp_path / "cut")
    done = list(batches)

    def noted(plan, batch, *rest, **named):
        batches.append(list(batch))
        return carried_out(plan, batch, *rest, **named)

    monkeypatch.setattr(replay, "run", noted)
    again = runs.record(study, Config(), root=tmp_path / "cut")
    assert results.digest(again.result) == results.digest(whole.result)
    assert len(done) == 2
    assert not [batch for batch in batches[2:] if batch in done]  # nothing was done twice
    assert sorted(cell for batch in batches for cell in batch) == list(range(8))
    left = [path for path in (tmp_path / "cut").rglob("*") if path.suffix == ".safetensors"]
    assert not left  # a complete run needs its cells no more


def test_results_of_own_functions_are_not_kept_and_nothing_is_said(tmp_path):
    model = models.load("tiny")
    task = tasks.ioi(model, prompts=4, seed=0)
    with effects.keeping(tmp_path / "cells"):
        found = effects.exact(
            model, task, [{Site("z", 0): torch.zeros_like}], metrics=[metrics.logit_diff]
        )
    assert found.values.shape == (1, 1, 4)
    assert not (tmp_path / "cells").exists()
    with pytest.raises(ValueError, match="function of your own"):
        effects.exact(
            model, task, [{Site("z", 0): torch.zeros_like}], metrics=[metrics.logit_diff],
            keep=tmp_path / "cells",
        )  # fmt: skip
