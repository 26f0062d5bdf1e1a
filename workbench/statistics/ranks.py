"""Do two lists of numbers order things alike?"""

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import stats
from torch import Tensor


def auroc(scores: Shaped[Tensor, " item"], members: Bool[Tensor, " item"]) -> float:
    """The chance that a member scores higher than one that is none; a tie counts one half.

    1 puts all members first, 0.5 is no order at all (Mann & Whitney 1947).
    """
    values, inside = _array(scores), members.detach().cpu().numpy()
    count, others = int(inside.sum()), int((~inside).sum())
    if not count or not others:
        raise ValueError(
            f"{count} members of {count + others}: an order of members before others needs both"
        )
    ranks = stats.rankdata(values)
    return float((ranks[inside].sum() - count * (count + 1) / 2) / (count * others))


def rank_correlation(one: Shaped[Tensor, " item"], other: Shaped[Tensor, " item"]) -> float:
    """Spearman's correlation, equal values sharing their mean rank; NaN where one is constant."""
    if one.shape != other.shape or one.numel() < 2:
        raise ValueError(
            f"{tuple(one.shape)} and {tuple(other.shape)} numbers: give two or more of each"
        )
    ranks = stats.rankdata(_array(one)), stats.rankdata(_array(other))
    if any(np.ptp(each) == 0 for each in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _array(values: Tensor) -> np.ndarray:
    found = values.detach().cpu().double().numpy()
    if np.isnan(found).any():
        raise ValueError("NaN has no place in an order: leave those out, and say so")
    return found
