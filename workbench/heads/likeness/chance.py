"""How alike are heads that were never trained? The same measures, on the model's weights redrawn.

A threshold is the most alike of all pairs of heads in 19 copies of the model whose weights were
drawn anew, on the same prompts. A model that was never trained is one more such copy, so that
any of its pairs is called alike with a chance of 1 in 20, by each measure.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench import models, statistics
from workbench.heads.likeness import outputs, patterns, reading, weights
from workbench.heads.naming import Head
from workbench.tasks import Task

COPIES = 19
"""So that the most alike of their pairs is what one more copy exceeds in 5 % of draws."""
_SHUFFLES = 2
_ROWS = 24
"""Rows of attention that are compared and shuffled: fewer are noisier, so it is cautious."""
_NOTHING = 1e-9
"""In nats, what rounding leaves of the divergence of rows that are the same."""


class Pairs(NamedTuple):
    """The mean of all pairs of heads, and the most alike of them."""

    mean: float
    most: float


@torch.no_grad()
def copies(
    model: HookedModel, task: Task, heads: list[Head], *, tokens: int, batch_size: int, seed: int
) -> list[tuple[Pairs, Pairs]]:
    """Attention and output of each redrawn copy; attention as a share of shuffled rows."""
    found = []
    with models.redrawn(model) as draw:
        for at in range(COPIES):
            draw(seed_of(seed, at))
            rows, zs = zip(*reading.batches(model, task, heads, batch_size), strict=True)
            grams = reading.grams(model, heads, torch.cat(zs, dim=1), tokens=tokens, seed=seed)
            found.append((_attention(rows[0], seed), _largest(outputs.cka(grams, grams))))
    return found


def seed_of(seed: int, copy: int) -> int:
    """What the weights of one copy are drawn with."""
    return statistics.derive(seed, "similarity", "copy", str(copy)).initial_seed()


def shuffled(rows: patterns.Rows, seed: int) -> Float[Tensor, "head other"]:
    """What every two heads would differ by if they agreed on rows no more than by chance."""
    generator = statistics.derive(seed, "similarity", "shuffles")
    return patterns.by_shuffling(patterns.first(rows, _ROWS), generator, draws=_SHUFFLES)


def of_all(
    found: list[tuple[Pairs, Pairs]], spaces: list[weights.Spaces], d_model: int
) -> tuple[list[float], list[float]]:
    """Mean and limit of every measure; of weights in closed form, being random spaces."""
    attention, output = (torch.tensor(one).double() for one in zip(*found, strict=True))
    mean = [float(attention[:, 0].nanmean()), float(output[:, 0].nanmean())]
    limit = [float(_known(attention[:, 1]).amin()), float(_known(output[:, 1]).amax())]
    for one in spaces:
        average, most = weights.by_chance(
            d_model, one.rank, max(1, one.pairs), level=1 / (COPIES + 1)
        )
        mean.append(average)
        limit.append(most)
    return mean, limit


def _attention(rows: patterns.Rows, seed: int) -> Pairs:
    by_chance = shuffled(rows, seed)
    some = patterns.first(rows, _ROWS)
    rest = some.weight[:, ~some.is_first]
    share = patterns.divergences(rest, rest) / some.rows / by_chance
    found = _largest(torch.where(by_chance > _NOTHING, -share, torch.nan))
    return Pairs(-found.mean, -found.most)


def _largest(found: Float[Tensor, "head other"]) -> Pairs:
    a, b = torch.triu_indices(len(found), len(found), offset=1)
    values = found[a, b]
    values = values[~values.isnan()]
    if not len(values):
        return Pairs(float("nan"), float("nan"))
    return Pairs(float(values.mean()), float(values.max()))


def _known(values: Float[Tensor, " copy"]) -> Float[Tensor, " some"]:
    """Those that are numbers; all of them where none is, so that nothing is beyond chance."""
    there = values[~values.isnan()]
    return there if len(there) else values
