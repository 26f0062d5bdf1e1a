"""Sweeps find what was planted."""

import pytest
import torch
from torch.testing import assert_close

from workbench import metrics, models, patching, tasks

DIFF = metrics.logit_diff


@pytest.mark.parametrize(
    ("kind", "denoise", "noise"), [("or", 8.0, 0.0), ("and", 0.0, -8.0)], ids=["or", "and"]
)
def test_denoising_finds_the_parts_of_an_or_and_noising_those_of_an_and(kind, denoise, noise):
    model = models.load(f"planted/{kind}")
    task = tasks.planted(model, prompts=8, seed=0)
    truth = models.planted.truth(model)
    found = patching.sweeps(model, task, "z", metrics=[DIFF])
    for direction, effect in (("denoise", denoise), ("noise", noise)):
        one = found.one(direction)
        expected = torch.zeros_like(one.effect)
        for head in truth.heads:
            expected[head] = effect
        assert_close(one.effect, expected, rtol=0, atol=1e-3)
        assert set(one.significant()) == (set(truth.heads) if effect else set())


@pytest.mark.parametrize("kind", ["or", "and"])
def test_a_residual_sweep_over_roles_gives_the_planted_map(kind):
    model = models.load(f"planted/{kind}")
    task = tasks.planted(model, prompts=8, seed=0)
    found = patching.sweep(model, task, "resid_pre", metric=DIFF, over="role")
    for (layer, role), value in models.planted.truth(model).residual.items():
        at = found.places.index(role)
        restored = found.corrupt + found.per_prompt[layer, at]
        assert_close(restored, torch.full_like(restored, value), rtol=0, atol=1e-3)


def test_shared_values_are_patched_by_key_value_head():
    model = models.load("planted/duplicate-gqa")
    task = tasks.planted(model, prompts=6, seed=0)
    roles = models.planted.truth(model).roles
    shared = model.cfg.n_heads // model.cfg.n_key_value_heads
    found = patching.sweep(model, task, "v", metric=DIFF, direction="noise")
    expected = torch.zeros(model.cfg.n_layers, model.cfg.n_key_value_heads)
    for layer, head in roles["induction"]:  # each writes 4 nats, and adds up with its like
        expected[layer, head // shared] -= 4
    for layer, head in roles["previous token"]:  # without it none of them has anything to write
        expected[layer, head // shared] = -12
    assert_close(found.effect, expected, rtol=0, atol=1e-3)
