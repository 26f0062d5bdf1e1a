"""The same architecture without what training put into it."""

from typing import Any

import torch

from workbench.models import tiny
from workbench.models.bridge import Model, wrap


def untrained(model: Model, *, seed: int) -> Model:
    """A model of the same configuration and tokenizer, its weights drawn anew from `seed`.

    Matrices are normal with mean 0 and deviation 0.02, as language models usually start.
    """
    inner: Any = model.original_model
    config = getattr(inner, "config", None)
    if config is None or not hasattr(type(inner), "from_pretrained"):
        raise ValueError(
            f"{model.origin.name} has no configuration to make an untrained model from: make one "
            "yourself and give its activations as a baseline"
        )
    with torch.random.fork_rng(devices=[]):
        fresh = type(inner)(config)
    tiny.fill(fresh, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for weight in fresh.parameters():
            if weight.ndim > 1:
                weight.mul_(0.02 / 0.25)
            else:
                weight.copy_(torch.ones_like(weight) if float(weight.mean()) > 0.5 else weight * 0)
    first = next(inner.parameters())
    name = f"{model.origin.name}, untrained"
    moved = fresh.to(first.device, first.dtype)
    return wrap(moved, model.tokenizer, name=name, source=f"random weights, seed {seed}")
