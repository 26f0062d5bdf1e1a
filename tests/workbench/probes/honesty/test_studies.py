"""What is read off a model, and what a study finds there."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts
from workbench import models, plots, probes, results


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_features_are_what_was_captured_at_each_position(tiny, prompts):
    from hooks import Site, capture

    y, at = torch.tensor([0, 1, 0]), torch.tensor([6, 2, 1])
    found = probes.features(tiny, prompts, y, positions=at, layers=[1, 0])
    seen = capture(tiny, prompts, [Site("resid_post", 1)])[Site("resid_post", 1)]
    assert found.layers == (1, 0)
    assert_close(found.x[0], seen[torch.arange(3), at])
    heads = probes.features(tiny, prompts, y, stream="z", layers=[0])
    assert heads.x.shape == (1, 3, 32)


def test_features_from_a_store_are_those_of_the_pass(tiny, prompts, tmp_path):
    from hooks import Site, sites, store

    held = store.write(tiny, [prompts], sites.all(tiny, "resid_post"), tmp_path, key="three")
    rows = torch.tensor([0, 4, 9])
    found = probes.from_store(held, rows, ["a", "b", "a"])
    assert found.y.tolist() == [0, 1, 0]
    taken = held.take(rows)
    assert_close(found.x[1], taken[Site("resid_post", 1)])
    assert found.groups.equal(taken.document)


@pytest.mark.slow
def test_a_study_of_a_model_without_knowledge_finds_nothing():
    # Check 30: random labels on a random model, nested and corrected.
    found = 0
    tiny = models.load("tiny")
    tokens = torch.randint(5, 200, (80, 4), generator=_generator())
    for seed in range(10):
        y = torch.randint(2, (80,), generator=_generator(seed + 1))
        examples = probes.features(tiny, Prompts.of(tokens), y)
        one = probes.study(
            examples, task="noise", folds=4, l2=(1e-1,), repeats=1, shuffles=19, seed=seed
        )
        found += bool(one.significant())
        assert one.significant() or "not significant" in one.sentence()
    assert found <= 2  # 0.05 a study


def test_the_layer_is_chosen_in_training_also_where_one_strength_is_given(noisy):
    generator = _generator()
    y = torch.arange(160) % 2
    x = torch.randn(3, 160, 16, generator=generator)
    x[2, :, 0] += 6.0 * y
    found = probes.study(probes.examples(x, y), task="parity", l2=(1e-2,), repeats=1, shuffles=19)
    assert found.best == 2 and found.chosen > 0.9


def test_a_study_finds_what_was_planted_where_it_was_planted(noisy, tmp_path):
    generator = _generator()
    types = torch.randint(20, (240,), generator=generator)
    y = types % 2
    x = torch.randn(3, 240, 16, generator=generator)
    x[2, :, 0] += 6.0 * y
    x[2] += torch.randn(20, 16, generator=generator)[types] / 4
    examples = probes.examples(x, y, types=types)
    found = probes.study(examples, task="parity", l2=(1e-2, 1e-1), repeats=2, shuffles=19)
    assert found.significant() == [2]
    assert found.best == 2
    assert found.chosen > 0.95
    assert found.low[2] <= found.accuracy[2] <= found.high[2]
    assert found.selectivity is not None and found.selectivity[2] > 0.2
    assert found.compression[2] > 2 > found.compression[0]
    assert abs(float(found.shuffled.mean()) - 0.5) < 0.08
    assert_close(found.correct.mean(dim=1), found.accuracy, atol=1e-6, rtol=0)
    assert len(found.table().splitlines()) == 4
    results.save(found, tmp_path / "study.nc")
    again = results.load(probes.ProbeStudy, tmp_path / "study.nc")
    assert results.digest(again) == results.digest(found)
    assert len(plots.png(found)) > 10_000
    assert found.headline()["best_layer"] == 2
