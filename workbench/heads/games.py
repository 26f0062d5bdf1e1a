"""Shapley values: what each player brings, mean over all orders in which they could come.

Shapley 1953; from a sample of orders, each with its reverse, as in Castro et al. 2009 and Mitchell
et al. 2022. Knows no model. A coalition is a set of players; its worth is one number for each
prompt.
"""

from collections.abc import Iterable, Mapping
from math import comb
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import statistics

Coalition = frozenset[int]
"""Players, counted from zero, that are there."""

MOST = 12
"""Players of whom all coalitions are looked at: 4096 of them."""


def coalitions(players: int) -> list[Coalition]:
    """All sets of players; the `n`-th has the players that are bits of n."""
    if players > MOST:
        raise ValueError(
            f"{players} players make 2 to the power of {players} coalitions; all of them are "
            f"looked at for up to {MOST} players: name fewer, or sample orders of them"
        )
    return [
        frozenset(player for player in range(players) if number >> player & 1)
        for number in range(2**players)
    ]


def exact_values(
    worth: Mapping[Coalition, Float[Tensor, " batch"]], players: int
) -> Float[Tensor, "player batch"]:
    """The values by their definition (Shapley 1953), from the worth of every coalition."""
    values = []
    for player in range(players):
        total = torch.zeros_like(worth[frozenset()], dtype=torch.float64)
        for some in coalitions(players):
            if player not in some:
                weight = 1 / (players * comb(players - 1, len(some)))
                total += weight * (worth[some | {player}].double() - worth[some].double())
        values.append(total)
    return torch.stack(values)


def orders(players: int, count: int, generator: torch.Generator) -> list[list[int]]:
    """So many orders of all players, each second one the reverse of the one before it.

    An order and its reverse err in opposite directions, where what a player brings falls or rises
    with how many are there (antithetic sampling).
    """
    if count < 4 or count % 2:
        raise ValueError(
            f"{count} orders: they come in pairs, and bounds need two pairs; give an even number, "
            "4 or more"
        )
    found: list[list[int]] = []
    for _ in range(count // 2):
        one = torch.randperm(players, generator=generator).tolist()
        found += [one, one[::-1]]
    return found


def prefixes(order: list[int]) -> list[Coalition]:
    """The coalitions as the players come one by one, from none to all."""
    return [frozenset(order[:size]) for size in range(len(order) + 1)]


def needed(several: Iterable[list[int]]) -> list[Coalition]:
    """The coalitions that these orders pass through, each once."""
    return list(dict.fromkeys(some for order in several for some in prefixes(order)))


def contributions(
    worth: Mapping[Coalition, Float[Tensor, " batch"]], order: list[int]
) -> Float[Tensor, "player batch"]:
    """What each player brings when they come in this order."""
    steps = torch.stack([worth[some].double() for some in prefixes(order)]).diff(dim=0)
    found = torch.empty_like(steps)
    found[torch.tensor(order)] = steps
    return found


class Sampled(NamedTuple):
    """Shares by some of all orders, and what other orders might have made of their mean."""

    shares: Float[Tensor, "player batch"]
    error: Float[Tensor, " player"]  # standard error
    low: Float[Tensor, " player"]
    high: Float[Tensor, " player"]
    p: Float[Tensor, " player"]  # that the share is zero, corrected for all players


def sampled_values(
    worth: Mapping[Coalition, Float[Tensor, " batch"]],
    several: list[list[int]],
    *,
    seed: statistics.Randomness = 0,
) -> Sampled:
    """The values by these orders, of which each second one is the reverse of the one before it.

    The bounds are `statistics.ranged_mean`'s over pairs of orders. A player may bring much in few
    orders, in none of those drawn: they hold while no coalition is worth more, or less, than those
    in `worth`, so that no step is larger than from the least of them to the most.
    """
    each = torch.stack([contributions(worth, order) for order in several])
    pairs = (each[0::2] + each[1::2]).mean(dim=-1) / 2
    means = [float(one.double().mean()) for one in worth.values()]
    reach = max(means) - min(means)
    found = statistics.ranged_mean(pairs.T, least=-reach, most=reach, seed=seed)
    error = pairs.std(dim=0) / len(pairs) ** 0.5
    p = (found.p * pairs.shape[1]).clamp(max=1.0)
    return Sampled(each.mean(dim=0), error, found.low, found.high, p)
