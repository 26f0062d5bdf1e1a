"""Which heads say what comes next in an order: after Monday Tuesday (Gould et al. 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel
from workbench import statistics
from workbench.heads.kinds.measured import Measured
from workbench.heads.kinds.reading import Hearing, values_of_tokens, written
from workbench.heads.naming import Head
from workbench.tasks import tokens

SUCCESSOR = "successor"
THRESHOLD = 0.3
ANY = "tokens of the same order, matched with successors at random"

ORDERS: Mapping[str, tuple[str, ...]] = {
    "days": tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
    "months": tuple(
        "January February March April May June July August September October November "
        "December".split()
    ),
    "numbers": tuple(
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty".split()
    ),
    "letters": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
}
_LEAST = 8
"""Fewer tokens with a successor say nothing: chance alone would find one."""


@dataclass(frozen=True, eq=False)
class Orders:
    """Tokens with the token that follows each, and which order they are of."""

    token: Int[Tensor, " token"]
    next: Int[Tensor, " token"]
    group: list[str]

    @classmethod
    def of(cls, model: Any) -> "Orders":
        """Those that this tokenizer spells as one token; an error where they are too few."""
        found = []
        tokenizer = tokens.tokenizer_of(model)
        for name, order in ORDERS.items():
            known = set(tokens.single(tokenizer, order))
            ids = {word: _id(tokenizer, word) for word in known}
            found += [
                (name, ids[one], ids[other])
                for one, other in pairwise(order)
                if one in known and other in known
            ]
        if len(found) < _LEAST:
            raise ValueError(
                f"{len(found)} days, months, numbers and letters are single tokens that have a "
                f"successor, at least {_LEAST} are needed"
            )
        group, token, following = zip(*found, strict=True)
        return cls(torch.tensor(token), torch.tensor(following), list(group))


@torch.no_grad()
def successors(model: HookedModel, *, seed: int) -> tuple[Measured, list[Head]]:
    """How often each head raises a token's successor most, of all successors of its order."""
    orders = Orders.of(model)
    values, heads = values_of_tokens(model, orders.token)
    directions = Hearing.of(model).directions(orders.next)
    said = einsum(values, written(model, heads), "h t d, h d m -> h t m")
    return judged(einsum(said, directions, "h t m, n m -> h t n"), orders.group, seed=seed), heads


def judged(logits: Float[Tensor, "head token next"], group: list[str], *, seed: int) -> Measured:
    """From the logits of every successor to the share of tokens whose own one is raised most."""
    logits = logits.cpu()
    same = torch.tensor([[one == other for other in group] for one in group])
    logits = logits.masked_fill(~same, -torch.inf)
    top = torch.nn.functional.one_hot(logits.argmax(2), len(group)).double()
    # A head that says nothing raises no token.
    top = top * (logits.amax(2, keepdim=True) > 0)
    hit, chance = top.diagonal(dim1=1, dim2=2), top.sum(2) / same.sum(1)
    bounds = statistics.bounds(hit - chance, seed=seed)
    test = statistics.matching_test(top, groups=group, seed=seed)
    return Measured(
        SUCCESSOR, "share of tokens", ANY, THRESHOLD, hit.mean(1), chance.mean(1),
        bounds.low, bounds.high, test.corrected,
    )  # fmt: skip


def _id(tokenizer: Any, word: str) -> int:
    found = tokens.continuation(tokenizer, "the", f" {word}")
    assert found is not None
    return found[0]
