"""Do heads say alike? Debiased CKA of what they write (Kornblith et al. 2019, Song et al. 2012)."""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

_BLOCK = 64
"""Rows of the Gram matrices that are compared at once."""


def grams(
    z: Float[Tensor, "head token d_head"], out: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "head token token"]:
    """Inner products of every two tokens' outputs, centred without bias (Szekely & Rizzo 2014).

    Outputs are z through W_O; only W_O W_O^T is needed, so nothing as wide as the model is made.
    """
    tokens = z.shape[1]
    if tokens < 4:
        raise ValueError(f"{tokens} tokens but the first: similarity of outputs needs at least 4")
    mixed = einsum(out, out, "h d m, h e m -> h d e")
    gram = einsum(z, mixed, z, "h t d, h d e, h u e -> h t u")
    gram.diagonal(dim1=1, dim2=2).zero_()
    rows = gram.sum(2, keepdim=True) / (tokens - 2)
    whole = gram.sum((1, 2))[:, None, None] / ((tokens - 1) * (tokens - 2))
    gram = gram - rows - rows.mT + whole
    gram.diagonal(dim1=1, dim2=2).zero_()
    return gram.float()  # compared by the million; summed in double precision


def cka(
    here: Float[Tensor, "head token token"], there: Float[Tensor, "other token token"]
) -> Float[Tensor, "head other"]:
    """1: the same up to rotation and scale. 0 on average for independent outputs, so it may be
    negative. NaN for a head that always writes the same."""
    both = _inner(here, there)
    sizes = [_own(one) for one in (here, there)]
    scale = (sizes[0][:, None] * sizes[1][None]).sqrt()
    return torch.where(scale > 0, both / scale, torch.nan)


def _inner(
    here: Float[Tensor, "head token token"], there: Float[Tensor, "other token token"]
) -> Float[Tensor, "head other"]:
    total = torch.zeros(len(here), len(there), dtype=torch.double, device=here.device)
    for start in range(0, here.shape[1], _BLOCK):
        part = slice(start, start + _BLOCK)
        total += (here[:, part].flatten(1) @ there[:, part].flatten(1).T).double()
    return total


def _own(gram: Float[Tensor, "head token token"]) -> Float[Tensor, " head"]:
    return torch.stack([one.double().square().sum() for one in gram])
