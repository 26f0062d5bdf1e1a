"""Orders in which heads are removed."""

from collections.abc import Mapping, Sequence

import torch

from hooks import HookedModel
from workbench import statistics
from workbench.heads.naming import Head, checked, every

RANDOM = "random"


def followed_by(first: Sequence[Head], rest: Sequence[Head]) -> list[Head]:
    """An order that begins with `first` and goes on with what of `rest` is not in it."""
    return [*first, *(head for head in rest if head not in set(first))]


def keeping(kept: Sequence[Head], order: Sequence[Head]) -> list[Head]:
    """The same order, but those that are to be kept go last: one of each cluster, for example."""
    last = [head for head in order if head in set(kept)]
    return [*(head for head in order if head not in set(kept)), *last]


def counted(shares: Sequence[float], total: int) -> list[int]:
    """How many heads those shares are, from none on."""
    if not shares or min(shares) < 0 or max(shares) > 1:
        raise ValueError(f"shares of all heads lie between 0 and 1, got {list(shares)}")
    counts = sorted({0, *(round(share * total) for share in shares)})
    if len(counts) < 2:
        raise ValueError(f"{list(shares)} of {total} heads are no curve: remove at least one head")
    return counts


def ranked(
    model: HookedModel, orders: Mapping[str, Sequence[Head]], most: int, *, draws: int, seed: int
) -> list[list[Head]]:
    """The orders, checked for the first `most` heads, and random ones after them."""
    if not orders and not draws:
        raise ValueError("no order was given: name at least one, such as importance")
    if RANDOM in orders:
        raise ValueError(f"the order {RANDOM!r} is drawn here: give yours another name")
    if orders and draws and draws < 2:
        raise ValueError("one random order has no spread: draw 5 or more, or 0 for none")
    rankings = []
    for name, order in orders.items():
        try:
            listed = checked(model, order)
        except ValueError as problem:
            raise ValueError(f"order {name!r}: {problem}") from None
        if len(listed) < most:
            raise ValueError(
                f"order {name!r} has {len(listed)} heads, but {most} are to be removed: let "
                "followed_by fill it up, or ask for smaller shares"
            )
        rankings.append(listed)
    heads = every(model)
    for draw in range(draws):
        generator = statistics.derive(seed, "curve", str(draw))
        rankings.append([heads[at] for at in torch.randperm(len(heads), generator=generator)])
    return rankings
