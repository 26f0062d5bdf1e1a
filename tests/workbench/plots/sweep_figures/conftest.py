"""Figures of sweeps, rankings and paths show what the results hold, readably."""

import pytest
import torch

from workbench.patching import PathEffects, Ranking, Sweep, Sweeps, Tracing

WORDS = {"task": "ioi", "task_digest": "t", "model": "tiny", "model_digest": "m"}


def maps(*shape, seed=0):
    """An effect with three prompts around it, bounds that are not symmetric, and p-values."""
    effect = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    p = torch.where(effect.abs() > 1, 0.01, 0.5)
    per_prompt = effect[..., None] + torch.tensor([-0.2, 0.0, 0.2])
    return {
        "effect": effect, "low": effect - 0.1, "high": effect + 0.3, "p": p,
        "per_prompt": per_prompt,
    }  # fmt: skip


@pytest.fixture(scope="session", name="maps")
def _maps():
    return maps


def sweep(layers=(0, 1, 2, 3), places=("IO", "S1", "S2"), **changed):
    fields = {
        **maps(len(layers), len(places)),
        "clean": torch.tensor([4.0, 5.0, 4.5]),
        "corrupt": torch.tensor([-5.0, -4.0, -5.4]),
        "layers": list(layers),
        "places": list(places),
        "stream": "attn_out",
        "over": "role",
        "direction": "denoise",
        "source": "counterfactual",
        "metric": "logit_diff",
        "unit": "nats",
        **WORDS,
    }
    return Sweep(**(fields | changed))


@pytest.fixture(scope="session", name="sweep")
def _sweep():
    return sweep


def sweeps(*, metrics=("logit_diff",), directions=("denoise", "noise"), layers=4, **changed):
    places = ["IO", "S1", "S2"]
    fields = {
        **maps(len(directions), len(metrics), layers, len(places)),
        "clean": torch.tensor([[4.0, 5.0, 4.5]] * len(metrics)),
        "corrupt": torch.tensor([[-5.0, -4.0, -5.4]] * len(metrics)),
        "directions": list(directions),
        "metrics": list(metrics),
        "units": ["nats"] * len(metrics),
        "layers": list(range(layers)),
        "places": places,
        "stream": "attn_out",
        "over": "role",
        "source": "counterfactual",
        **WORDS,
    }
    return Sweeps(**(fields | changed))


@pytest.fixture(scope="session", name="sweeps")
def _sweeps():
    return sweeps


def ranking(count=5, **changed):
    fields = {
        **maps(count),
        "baseline": torch.ones(3),
        "places": [f"neuron 1.{at}" for at in range(count)],
        "what": "mean ablation of single neurons",
        "run": "clean",
        "metric": "logit_diff",
        "unit": "nats",
        **WORDS,
    }
    return Ranking(**(fields | changed))


@pytest.fixture(scope="session", name="ranking")
def _ranking():
    return ranking


def path_effects(**changed):
    mlp = {f"mlp_{name}": one for name, one in maps(4, seed=1).items() if name != "effect"}
    fields = {
        **maps(4, 3), **mlp, "mlp": maps(4, seed=1)["effect"],
        "baseline": torch.ones(3), "other": -torch.ones(3), "to": "logits", "between": "free",
        "direction": "noise", "metric": "logit_diff", "unit": "nats", **WORDS,
    }  # fmt: skip
    return PathEffects(**(fields | changed))


@pytest.fixture(scope="session", name="path_effects")
def _path_effects():
    return path_effects


def tracing(**changed):
    clean = torch.tensor([4.0, 5.0, 4.5])
    fields = {
        **maps(4, 3), "by_draw": torch.zeros(2, 4, 3), "clean": clean, "noised": clean - 2,
        "total": 2.0, "total_low": 1.5, "total_high": 2.5, "layers": [0, 1, 2, 3],
        "places": ["first", "last", "END"], "stream": "mlp_out", "over": "role", "window": 2,
        "severed": "none", "subject": "country", "noise": 3.0, "deviation": 0.1,
        "metric": "logit_diff", "unit": "nats", **WORDS,
    }  # fmt: skip
    return Tracing(**(fields | changed))


@pytest.fixture(scope="session", name="tracing")
def _tracing():
    return tracing


EVERY = {
    "sweep": sweep,
    "sweeps": sweeps,
    "ranking": ranking,
    "paths": path_effects,
    "tracing": tracing,
}


@pytest.fixture(params=EVERY)
def any_result(request):
    return EVERY[request.param]()
