"""Training of probes that have no formula: whole-batch, to a stated gradient or not at all."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Loss = Callable[[], Float[Tensor, " problem"]]


def trained(
    weights: Sequence[Tensor], loss: Loss, *, steps: int, rate: float
) -> Float[Tensor, " problem"]:
    """Adam on the sum of independent problems, its rate falling to zero as a cosine.

    Leaves the weights where it stopped and returns each problem's gradient there, relative to the
    one at the start: probes carry it, as these objectives have many optima. The first axis of
    every weight is the problem.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps train nothing: take 100 or more")
    adam = torch.optim.Adam(weights, lr=rate)
    first = _gradient(weights, loss)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        adam.zero_grad()
        loss().sum().backward()
        adam.step()
    left = _gradient(weights, loss) / first.clamp(min=1e-30)
    if not bool(left.isfinite().all()):
        worst = int((~left.isfinite()).nonzero()[0])
        raise RuntimeError(f"training of problem {worst} ran away: take a smaller rate")
    return left


def _gradient(weights: Sequence[Tensor], loss: Loss) -> Float[Tensor, " problem"]:
    found = torch.autograd.grad(loss().sum(), list(weights))
    return torch.stack([one.flatten(1).square().sum(dim=1) for one in found]).sum(dim=0).sqrt()
