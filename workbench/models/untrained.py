"""The same architecture without what training put into it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

    Matrices are uniform with the mean and deviation that they had, entries of vectors change
    places: what is left is the architecture and the scale, so that attention is about as sharp as
    before, which it is not after `untrained`. Takes models without a configuration, and those
    that heads were removed from.
    """
    weights = (one for one in model.parameters() if one.is_floating_point() and one.numel())
    own = [(one, one.data) for one in weights]
    noise = [_Noise.of(weight) for _, weight in own]

    def draw(seed: int) -> None:
        generators: dict[torch.device, torch.Generator] = {}
        for (one, weight), new in zip(own, noise, strict=True):
            place = weight.device
            if place not in generators:
                generators[place] = torch.Generator(place).manual_seed(seed)
            one.data = new.drawn(weight, generators[place])

    try:
        yield draw
    finally:
        for one, weight in own:
            one.data = weight


_BYTE = ((256**2 - 1) / 12) ** 0.5
"""The deviation of the numbers 0 to 255."""


@dataclass(frozen=True, eq=False)
class _Noise:
    """What stands in for one weight; its memory is used again by every draw."""

    new: Tensor
    mean: float
    spread: float

    @classmethod
    def of(cls, weight: Tensor) -> "_Noise":
        spread, mean = torch.std_mean(weight, correction=0)
        return cls(torch.empty_like(weight), float(mean), float(spread))

    def drawn(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        if weight.ndim == 0:
            return weight
        if weight.ndim == 1:
            order = torch.randperm(len(weight), generator=generator, device=weight.device)
            return self.new.copy_(weight[order])
        # 256 levels, eight of them from one number: a fifth of the time that normal ones take.
        words = torch.empty(-(-weight.numel() // 8), dtype=torch.int64, device=weight.device)
        words.random_(-(2**63), None, generator=generator)
        levels = words.view(torch.uint8)[: weight.numel()].view(weight.shape)
        step = self.spread / _BYTE
        return self.new.copy_(levels).mul_(step).add_(self.mean - 127.5 * step)
