"""How alike two scores order the heads, and how sure that is."""

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from workbench import statistics
from workbench.heads.ranking import Importance


def drawn(one: Importance, resamples: int, seed: int) -> Float[Tensor, "layer head draw"] | None:
    """The score from other samples of the prompts; None where there are no prompts to draw."""
    values = one.score_of_prompts
    if values is None:
        return None
    generator = statistics.derive(seed, "agreement of importance")
    prompts = values.shape[-1]
    rows = torch.randint(prompts, (resamples, prompts), generator=generator)
    return torch.stack([values[..., row].double().mean(dim=-1) for row in rows], dim=-1)


def correlated(
    score: Float[Tensor, "method layer head"],
    drawn: list[Tensor | None],
    both: Tensor,
    pair: tuple[int, int],
) -> tuple[float, float, float]:
    """The rank correlation of two measures over the heads that both score, and its bounds."""
    if int(both.sum()) < 2:
        return float("nan"), float("nan"), float("nan")
    sides = [score[place][both] for place in pair]
    value = statistics.rank_correlation(*sides)
    samples = [drawn[place] for place in pair]
    if value != value or all(one is None for one in samples):
        return value, float("nan"), float("nan")
    ranks = []
    for one, side in zip(samples, sides, strict=True):
        columns = side.double()[:, None] if one is None else one[both]
        ranks.append(stats.rankdata(columns.numpy(), axis=0))
    return value, *_bounds(value, _columnwise(*ranks))


def _columnwise(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The correlation of the columns of one with those of the other; constant ones left out."""
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    lengths = np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
    found = (one * other).sum(axis=0)
    return found[lengths > 0] / np.broadcast_to(lengths, found.shape)[lengths > 0]


def _bounds(value: float, samples: np.ndarray) -> tuple[float, float]:
    """95 % bounds: a normal on Fisher's scale, as wide as the resampled correlations.

    Resampled prompts are noisier than the prompts, so their correlations lie too low; only their
    scatter is used.
    """
    if len(samples) < 2:
        return float("nan"), float("nan")
    edge = 1 - 1e-6
    error = 1.96 * float(np.arctanh(np.clip(samples, -edge, edge)).std())
    if error < 1e-9:
        return value, value
    middle = float(np.arctanh(np.clip(value, -edge, edge)))
    return float(np.tanh(middle - error)), float(np.tanh(middle + error))


def overlap(one: Float[Tensor, " head"], other: Float[Tensor, " head"], top: int) -> float:
    """The share of one's first heads that are among the other's first, equals drawn by lot."""
    if len(one) <= top:
        return float("nan")  # all would be among the first
    return float((_first(one, top) * _first(other, top)).sum()) / top


def _first(score: Float[Tensor, " head"], size: int) -> Float[Tensor, " head"]:
    """How likely each head is to be among the first, when equal scores are put in random order."""
    least = score.sort(descending=True).values[size - 1]
    above, equal = score > least, score == least
    return above.double() + equal.double() * (size - int(above.sum())) / int(equal.sum())


def constant(share: Float[Tensor, "layer head"]) -> bool:
    """Whether a measure tells no heads apart."""
    known = share[~share.isnan()]
    return bool((known == known[:1]).all())


def ranks(score: Float[Tensor, "layer head"]) -> Float[Tensor, "layer head"]:
    """Each head's place from the highest score down, from 1; equals share their mean place."""
    found, there = torch.full(score.shape, torch.nan), ~score.isnan()
    found[there] = torch.from_numpy(stats.rankdata(-score[there].double().numpy())).float()
    return found


def spread(share: Float[Tensor, "method layer head"]) -> Float[Tensor, "layer head"]:
    """Largest less smallest share; a slope without sign is held against the sizes of the others."""
    most, least = share.nan_to_num(-2).amax(dim=0), share.nan_to_num(2).amin(dim=0)
    found = most - least
    return torch.where(share.isnan().all(dim=0), torch.nan, found)
