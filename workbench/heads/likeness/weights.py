"""Do heads read from, and write to, the same directions? The projection kernel of subspaces.

||U^T V||^2 of two orthonormal bases: d_head for the same space, 0 for orthogonal ones, and
r s / d_model on average for random spaces of ranks r and s.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from hooks import HookedModel
from hooks import heads as numbering
from workbench.heads.naming import Head, column, output_matrix

Role = Literal["O", "V", "Q", "K"]
_BLOCK = 64


def bases(model: HookedModel, heads: list[Head], role: Role) -> list[Float[Tensor, "d_model _"]]:
    """An orthonormal basis of what each head writes to (O) or reads from (V, Q, K).

    Query heads that share keys and values have the same bases for K and V.
    """
    return [basis(_weight(model, head, role)) for head in heads]


def basis(weight: Float[Tensor, "d_model d_head"]) -> Float[Tensor, "d_model rank"]:
    """An orthonormal basis of the columns."""
    u, s, _ = torch.linalg.svd(weight.double(), full_matrices=False)
    least = max(weight.shape) * torch.finfo(weight.dtype).eps * float(s.max())
    return u[:, s > least] if float(s.max()) > 0 else u[:, :0]


def kernel(bases: list[Float[Tensor, "d_model _"]]) -> Float[Tensor, "head other"]:
    """The projection kernel of every two: <P, Q> of their projectors. NaN for an empty space."""
    size, heads = bases[0].shape[0], len(bases)
    total = torch.zeros(heads, heads, dtype=torch.double)
    for start in range(0, size, _BLOCK):
        rows = torch.stack(
            [(one[start : start + _BLOCK] @ one.T).flatten().float() for one in bases]
        )
        total += (rows @ rows.T).double()
    empty = torch.tensor([one.shape[1] == 0 for one in bases])
    return total.masked_fill(empty[:, None] | empty[None], torch.nan)


def by_chance(d_model: int, rank: int, pairs: int, *, level: float) -> tuple[float, float]:
    """The mean kernel of random spaces, and what the largest of `pairs` exceeds with `level`.

    The second is by the normal distribution, with the exact variance.
    """
    mean = rank**2 / d_model
    variance = 2 * (rank * (d_model - rank)) ** 2
    variance /= d_model**2 * (d_model - 1) * (d_model + 2)
    return mean, mean + float(stats.norm.isf(level / pairs)) * math.sqrt(variance)


def _weight(model: HookedModel, head: Head, role: Role) -> Float[Tensor, "d_model d_head"]:
    if role == "O":
        return output_matrix(model, head).T
    attention, at = model.blocks[head[0]].attn, column(model, head)
    if role == "Q":
        return attention.W_Q[at]
    # Some architectures repeat keys and values for every query head.
    weight, there = getattr(attention, f"W_{role}"), numbering.at(model, head[0])
    return weight[there.reads[at] if len(weight) == len(there.key_value) else at]
