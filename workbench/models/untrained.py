"""The same architecture without what training put into it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

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


@contextmanager
def redrawn(model: Any) -> Iterator[Callable[[int], None]]:
    """While open, `draw(seed)` gives `model` itself new weights; at the end it has its own again.

    Matrices are normal with the mean and deviation that they had, entries of vectors change
    places: what is left is the architecture and the scale, so that attention is about as sharp as
    before, which it is not after `untrained`. Takes models without a configuration, and those
    that heads were removed from.
    """
    own = [(one, one.data) for one in model.parameters() if one.is_floating_point()]
    spreads = [torch.std_mean(weight, correction=0) for _, weight in own]
    drawn = [torch.empty_like(weight) for _, weight in own]  # filled again by every draw

    def draw(seed: int) -> None:
        generators: dict[torch.device, torch.Generator] = {}
        for (one, weight), (spread, mean), new in zip(own, spreads, drawn, strict=True):
            place = weight.device
            if place not in generators:
                generators[place] = torch.Generator(place).manual_seed(seed)
            one.data = _anew(weight, float(spread), float(mean), new, generators[place])

    try:
        yield draw
    finally:
        for one, weight in own:
            one.data = weight


def _anew(
    weight: Tensor, spread: float, mean: float, new: Tensor, generator: torch.Generator
) -> Tensor:
    if weight.ndim > 1:
        return new.normal_(mean, spread, generator=generator)
    if weight.ndim == 1:
        order = torch.randperm(len(weight), generator=generator, device=weight.device)
        return new.copy_(weight[order])
    return weight
