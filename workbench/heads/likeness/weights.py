"""Do heads read from, and write to, the same directions? The projection kernel of subspaces.

||U^T V||^2 (Frobenius) of two orthonormal bases, the sum of squared cosines of the principal
angles between what they span (Hamm & Lee 2008): d_head for the same space, 0 for orthogonal ones,
and r s / d_model on average for random spaces of ranks r and s. The spaces are the columns of
W_O^T (what a head writes), W_V, W_Q and W_K (what it reads) one by one, not of the products W_OV
and W_QK of Elhage et al. 2021, which have the same columns where these have full rank.
"""

import math
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Spaces:
    """Orthonormal bases, each once, and which of them every head has.

    Query heads that share keys and values have the same bases for K and V.
    """

    bases: list[Float[Tensor, "d_model _"]]
    of: list[int]

    @property
    def rank(self) -> int:
        """The largest."""
        return max(one.shape[1] for one in self.bases)

    @property
    def pairs(self) -> int:
        """How many pairs of different spaces there are."""
        return len(self.bases) * (len(self.bases) - 1) // 2

    def kernel(self) -> Float[Tensor, "head other"]:
        """The projection kernel of every two heads."""
        return kernel(self.bases)[self.of][:, self.of]


def spaces(model: HookedModel, heads: list[Head], role: Role) -> Spaces:
    """What each head writes to (O) or reads from (V, Q, K)."""
    place: dict[Head, int] = {}
    bases, of = [], []
    for head in heads:
        one = head if role in "OQ" else (head[0], head[1] // numbering.at(model, head[0]).group)
        if one not in place:
            place[one] = len(bases)
            bases.append(basis(_weight(model, head, role)))
        of.append(place[one])
    return Spaces(bases, of)


def basis(weight: Float[Tensor, "d_model d_head"]) -> Float[Tensor, "d_model rank"]:
    """An orthonormal basis of the columns."""
    u, s, _ = torch.linalg.svd(weight.double(), full_matrices=False)
    least = max(weight.shape) * torch.finfo(weight.dtype).eps * float(s.max())
    return u[:, s > least] if float(s.max()) > 0 else u[:, :0]


def kernel(bases: list[Float[Tensor, "d_model _"]]) -> Float[Tensor, "head other"]:
    """The projection kernel of every two: <P, Q> of their projectors. NaN for an empty space."""
    size, heads = bases[0].shape[0], len(bases)
    single = [one.float() for one in bases]
    total = torch.zeros(heads, heads, dtype=torch.double)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        # Projectors are symmetric: what lies right of the diagonal block counts twice.
        rows = torch.stack([one[start:end] @ one[start:].T for one in single])
        rows[:, :, end - start :] *= math.sqrt(2)
        total += (rows.flatten(1) @ rows.flatten(1).T).double()
    empty = torch.tensor([one.shape[1] == 0 for one in bases])
    return total.masked_fill(empty[:, None] | empty[None], torch.nan)


def by_chance(d_model: int, rank: int, pairs: int, *, level: float) -> tuple[float, float]:
    """The mean kernel of random spaces, and what the largest of `pairs` exceeds with `level`.

    The second is by a beta distribution with the exact range, mean and variance: a normal one is
    exceeded half as often again, because small overlaps are skewed.
    """
    mean = rank**2 / d_model
    least = max(0, 2 * rank - d_model)
    if least == rank:  # spaces of everything, or of nothing
        return mean, mean
    variance = 2 * (rank * (d_model - rank)) ** 2
    variance /= d_model**2 * (d_model - 1) * (d_model + 2)
    at, width = (mean - least) / (rank - least), rank - least
    sharp = at * (1 - at) * width**2 / variance - 1
    beta = stats.beta(at * sharp, (1 - at) * sharp, least, width)
    return mean, float(beta.isf(level / pairs))


def _weight(model: HookedModel, head: Head, role: Role) -> Float[Tensor, "d_model d_head"]:
    if role == "O":
        return output_matrix(model, head).T
    attention, at = model.blocks[head[0]].attn, column(model, head)
    if role == "Q":
        return attention.W_Q[at]
    # Some architectures repeat keys and values for every query head.
    weight, there = getattr(attention, f"W_{role}"), numbering.at(model, head[0])
    return weight[there.reads[at] if len(weight) == len(there.key_value) else at]
