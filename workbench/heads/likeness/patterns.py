"""How differently do heads attend? Jensen-Shannon divergence of their rows (Clark et al. 2019)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Activations, HookedModel, Site
from workbench.heads.naming import Head, column

_AT_ONCE = 2_000_000


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of some heads side by side: every entry of every row that may hold attention.

    Rows of padding and of first tokens, which attend only to themselves, are left out.
    """

    weight: Float[Tensor, "head entry"]
    is_first: Bool[Tensor, " entry"]  # the entries that are attention to the first token
    row: Float[Tensor, " entry"]  # which row an entry is of
    rows: int

    @classmethod
    def of(cls, model: HookedModel, seen: Activations, heads: list[Head]) -> "Rows":
        """What one batch gives."""
        mask = seen.prompts.mask.bool()
        size = mask.shape[1]
        at = torch.arange(size, device=mask.device)
        causal = not _looks_ahead(seen, heads)
        entry = mask[:, :, None] & mask[:, None] & (at > 0)[:, None]
        entry = entry & (at[:, None] >= at) if causal else entry
        patterns = [seen[Site("pattern", one[0])][:, column(model, one)] for one in heads]
        weight = torch.stack([one[entry] for one in patterns])
        row = (torch.arange(len(mask), device=mask.device)[:, None] * size + at)[:, :, None]
        row = row.expand_as(entry)[entry]
        first = (at == 0).expand_as(entry)[entry]
        return cls(
            weight.double().cpu(), first.cpu(), row.double().cpu(), int(row.unique().numel())
        )


def divergences(
    here: Float[Tensor, "head entry"], there: Float[Tensor, "head entry"]
) -> Float[Tensor, "head other"]:
    """Summed over entries: a and b in halves against their mean. Each entry's part is >= 0.

    Summed over all entries of a row it is the Jensen-Shannon divergence in nats, between 0 and
    log 2; a part of the entries has a part of it. Each two heads are compared once, the earlier
    one `here` with the later one `there`.
    """
    halves = (entropy_like(here)[:, None] + entropy_like(there)[None]) / 2
    mixed = torch.zeros_like(halves)
    for at, one in enumerate(here):
        step = max(1, _AT_ONCE // max(1, len(one)))
        for start in range(at, len(there), step):
            mixed[at, start : start + step] = entropy_like((one + there[start : start + step]) / 2)
    once = (halves - mixed).clamp(min=0).triu()
    return once + once.triu(1).T


def entropy_like(weight: Float[Tensor, "*cells entry"]) -> Float[Tensor, "*cells"]:
    """The sum of x log x."""
    return torch.xlogy(weight, weight).sum(-1)


def by_shuffling(
    rows: Rows, generator: torch.Generator, *, draws: int
) -> Float[Tensor, "head other"]:
    """What each head differs from each other one when the other's rows are shuffled, a row.

    The mean of `draws` shuffles. By pair, because two heads that rest on the first token differ
    little however the rest lies.
    """
    rest = ~rows.is_first
    found = [
        divergences(rows.weight[:, rest], shuffled(rows, generator)[:, rest]) for _ in range(draws)
    ]
    return torch.stack(found).mean(0) / rows.rows


def shuffled(rows: Rows, generator: torch.Generator) -> Float[Tensor, "head entry"]:
    """The same rows, what is not on the first token moved about within each row; alike for all."""
    moved = (~rows.is_first).nonzero()[:, 0]
    keys = torch.rand(len(moved), generator=generator, dtype=torch.double)
    order = moved[(rows.row[moved] + keys).argsort()]  # rows stay in order, entries do not
    out = rows.weight.clone()
    out[:, moved] = rows.weight[:, order]
    return out


def first(rows: Rows, count: int) -> Rows:
    """The first `count` rows."""
    kept = rows.row <= rows.row.unique()[:count].max()
    number = int(rows.row[kept].unique().numel())
    return Rows(rows.weight[:, kept], rows.is_first[kept], rows.row[kept], number)


def _looks_ahead(seen: Activations, heads: list[Head]) -> bool:
    layers = {layer for layer, _ in heads}
    return any(bool((seen[Site("pattern", at)].triu(1) > 1e-6).any()) for at in layers)
