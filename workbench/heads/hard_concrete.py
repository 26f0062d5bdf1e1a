"""Gates that are exactly 0 or 1 much of the time and can still be learned by gradients.

The hard-concrete distribution of Louizos, Welling & Kingma 2018 (https://arxiv.org/abs/1712.01312,
equations 10 to 13), one parameter `log_alpha` for each gate.
"""

from math import log

import torch
from jaxtyping import Float
from torch import Tensor

TEMPERATURE, BELOW, ABOVE = 2 / 3, -0.1, 1.1
"""How soft the step is, and how far it reaches past 0 and 1 before it is cut off there."""


def drawn(log_alpha: Float[Tensor, "*gates"], uniform: Float[Tensor, "*gates"]) -> Tensor:
    """The gates that these uniform numbers, between 0 and 1, stand for; differentiable."""
    noise = uniform.clamp(1e-6, 1 - 1e-6).logit()
    return _stretched(torch.sigmoid((noise + log_alpha) / TEMPERATURE))


def settled(log_alpha: Float[Tensor, "*gates"]) -> Tensor:
    """The gates without chance, as they are used after learning."""
    return _stretched(torch.sigmoid(log_alpha))


def open_chance(log_alpha: Float[Tensor, "*gates"]) -> Tensor:
    """The chance that a drawn gate is not 0."""
    return torch.sigmoid(log_alpha - TEMPERATURE * log(-BELOW / ABOVE))


def _stretched(inside: Tensor) -> Tensor:
    return (inside * (ABOVE - BELOW) + BELOW).clamp(0, 1)
