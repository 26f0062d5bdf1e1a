"""Logits with the last norm's scale held as it was, so that what is added to its input adds up."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import HookedModel, Prompts, last_logits

_LARGE = 1e4  # beside it, what a norm adds to the variance against division by zero is nothing


@dataclass(frozen=True, eq=False)
class FixedNorm:
    """The last norm of a model on some prompts, made affine by holding its scale.

    Weight, bias and whether it centres are found by calling it, so that LayerNorm, RMSNorm,
    Gemma's offset and no norm at all need no cases.
    """

    normed: Float[Tensor, "batch 1 d_model"]
    weight: Float[Tensor, "batch 1 d_model"]  # from a centred addition to its input, to its output
    centres: bool

    @classmethod
    def of(cls, model: HookedModel, final: Float[Tensor, "batch 1 d_model"]) -> "FixedNorm":
        """The norm as it acts on `final`, what entered it at each prompt's last token."""
        norm: Any = model.ln_final  # type: ignore[attr-defined]
        normed, bias = norm(final), norm(torch.zeros_like(final))
        wave = torch.ones(final.shape[-1], dtype=final.dtype, device=final.device)
        wave[1::2] = -1
        wave = wave - wave.mean()
        large, larger = (norm((size * wave).expand_as(final)) for size in (_LARGE, 2 * _LARGE))
        if not bool(_close(large, larger)):  # it grows with its input: there is no scale to hold
            weight = (large - bias) / (_LARGE * wave)
            return cls(normed, weight.double(), False)
        unscaled = ((large - bias) / wave).double() * wave.double().square().mean().sqrt()
        shifted = norm(final + final.abs().mean())
        centres = bool((shifted - normed).abs().max() < 1e-3 * normed.abs().max())
        through = unscaled * (_centred(final) if centres else final.double())
        scale = through.norm(dim=-1, keepdim=True) / (normed - bias).double().norm(
            dim=-1, keepdim=True
        )
        return cls(normed, unscaled / scale, centres)

    def __call__(self, added: Float[Tensor, "batch 1 d_model"]) -> Float[Tensor, "batch 1 d_model"]:
        """What leaves the norm when `added` is added to what enters it."""
        change = self.weight * (_centred(added) if self.centres else added.double())
        return (self.normed.double() + change).to(self.normed.dtype)


def logits_of(
    model: HookedModel, prompts: Prompts, norm: FixedNorm
) -> Float[Tensor, "batch 1 vocab"]:
    """The unembedding of what leaves the norm; an error where those are not the model's logits."""
    found: Tensor = model.unembed(norm.normed)  # type: ignore[attr-defined]
    expected = last_logits(model, prompts)
    error = float((found - expected).abs().max() / expected.abs().max())
    if error > (1e-4 if found.dtype in (torch.float32, torch.float64) else 5e-2):
        raise ValueError(
            f"the unembedding of the last norm misses the model's logits by {error:.1e}: something "
            "stands between them (a soft cap, a scale), so that nothing adds up. Take "
            'between="frozen"'
        )
    return found


def _centred(value: Tensor) -> Tensor:
    value = value.double()
    return value - value.mean(dim=-1, keepdim=True)


def _close(one: Tensor, other: Tensor) -> Bool[Tensor, ""]:
    return (one - other).abs().max() <= 1e-2 * one.abs().max()
