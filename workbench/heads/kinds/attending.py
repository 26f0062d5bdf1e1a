"""Where heads attend: to the token before, to what was said before, to the first token.

Every score is the attention on the type's targets, meaned over the queries that have one. Its
null is the same attention with each row shuffled over the tokens it might have gone to, in
closed form: all earlier tokens and its own, but for the first token, which is a type apart.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import HookedModel, Prompts, capture_batches, sites
from workbench.heads.kinds.measured import Measured, by_prompt, one_sided
from workbench.heads.naming import Head, every

PREVIOUS, DUPLICATE, INDUCTION = "previous token", "duplicate token", "induction"
FIRST, OFFSET = "first token", "fixed offset"
EVERYWHERE = (PREVIOUS, FIRST, OFFSET)
"""The types that a head must show on natural prompts too."""

THRESHOLDS: Mapping[str, float] = {
    PREVIOUS: 0.3, DUPLICATE: 0.3, INDUCTION: 0.3, FIRST: 0.5, OFFSET: 0.3,
}  # fmt: skip
"""Attention beyond the null from which on a head is spoken of."""

OFFSETS = (0, 2, 3, 4, 5, 6, 7, 8)
"""How many tokens back "fixed offset" may look; one back is "previous token"."""

SHUFFLED = "its attention, each row shuffled over the tokens it might have gone to but the first"
SPREAD_OUT = "its attention, each row shuffled over all tokens it might have gone to"

Relation = Bool[Tensor, "batch query key"]


@dataclass(frozen=True, eq=False)
class Attention:
    """What each prompt's rows give a relation: NaN where no row of the prompt has a target."""

    score: Float[Tensor, "relation head batch"]
    null: Float[Tensor, "relation head batch"]
    heads: list[Head]

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        """Scores and nulls of a relation on the prompts that have it."""
        held = ~self.score[at].isnan().any(dim=0)
        return self.score[at][:, held], self.null[at][:, held]

    def shared(self) -> "Attention":
        """The same on the prompts that have every relation, so that all can be tested together."""
        held = ~self.score.isnan().any(dim=0).any(dim=0)
        return Attention(self.score[..., held], self.null[..., held], self.heads)


def relations(prompts: Prompts) -> dict[str, Relation]:
    """For each type the keys that a query of it attends to. Padding has none."""
    tokens, size = prompts.tokens, prompts.tokens.shape[1]
    at = torch.arange(size, device=tokens.device)
    back = at[:, None] - at[None]
    same = tokens[:, :, None] == tokens[:, None]
    before = rearrange(same, "b q k -> b q k") & (back > 0)
    follows = torch.zeros_like(same)
    follows[:, :, 1:] = before[:, :, :-1]  # the key after an earlier saying of the query's token
    found = {
        PREVIOUS: (back == 1).expand_as(same),
        DUPLICATE: before,
        INDUCTION: follows & (back >= 0),
        FIRST: (at[None] == 0).expand_as(same) & (back > 0),
        **{_offset(one): (back == one).expand_as(same) for one in OFFSETS},
    }
    real = prompts.mask.bool()
    real = real[:, :, None] & real[:, None]
    return {name: (one & real) for name, one in found.items()}


def attention(
    model: HookedModel, prompts: Prompts, names: Iterable[str], *, batch_size: int
) -> Attention:
    """Score and null of every relation, head and prompt; one pass over the prompts."""
    names, scores, nulls = list(names), [], []
    wanted = sites.all(model, "pattern")
    for seen in capture_batches(model, prompts.batches(batch_size), wanted):
        known = relations(seen.prompts)
        weights = [_weights(known[name], seen.prompts, name) for name in names]
        score = torch.stack([one for one, _ in weights])
        null = torch.stack([one for _, one in weights])
        patterns = [seen[site].double() for site in wanted]
        _check_causal(patterns, seen.prompts, model)
        scores.append(torch.cat([_under(score, one) for one in patterns], dim=1).cpu())
        nulls.append(torch.cat([_under(null, one) for one in patterns], dim=1).cpu())
    return Attention(torch.cat(scores, dim=2), torch.cat(nulls, dim=2), every(model))


def best_offset(found: Attention) -> Int[Tensor, " head"]:
    """For each head the index, in `OFFSETS`, of where it looks most."""
    return (found.score - found.null).nanmean(dim=2).argmax(dim=0)


def at_offset(found: Attention, chosen: Int[Tensor, " head"]) -> tuple[Tensor, Tensor]:
    """Scores and nulls, (head, batch), of every head at its own offset."""
    row = torch.arange(len(chosen))
    held = ~found.score[chosen, row].isnan().any(dim=0)
    return found.score[chosen, row][:, held], found.null[chosen, row][:, held]


def offset_names(shortest: int) -> Iterator[str]:
    """The relations that "fixed offset" chooses from, in prompts of at least so many tokens."""
    return (_offset(one) for one in OFFSETS if one + 2 < shortest)


def judged(
    named: Mapping[str, tuple[Tensor, Tensor]], *, seed: int, together: bool
) -> list[Measured]:
    """Every type's heads with bounds and p: corrected for all heads, and types where `together`."""
    tests = {name: by_prompt(*pair, seed=seed) for name, pair in named.items()}
    if together:
        score, null = (torch.stack([pair[at] for pair in named.values()]) for at in (0, 1))
        joint = dict(zip(named, by_prompt(score, null, seed=seed)[2], strict=True))
        tests = {name: (low, high, joint[name]) for name, (low, high, _) in tests.items()}
    return [
        Measured(
            name, "attention", SPREAD_OUT if name == FIRST else SHUFFLED, THRESHOLDS[name],
            score.mean(1), null.mean(1), low, high, one_sided(p, (score - null).mean(1)),
        )
        for name, (score, null) in named.items()
        for low, high, p in [tests[name]]
    ]  # fmt: skip


def _offset(back: int) -> str:
    return f"{back} back"


def _weights(relation: Relation, prompts: Prompts, name: str) -> tuple[Tensor, Tensor]:
    """What a pattern is summed with, to give the score and its mean under shuffled rows."""
    size = relation.shape[1]
    at = torch.arange(size, device=relation.device)
    allowed = (at[:, None] >= at[None]).expand_as(relation) & prompts.mask.bool()[:, :, None]
    if name != FIRST:
        allowed = allowed & (at > 0)
    targets = (relation & allowed).double()
    choices = allowed.double().sum(2)
    rows = (targets.sum(2) > 0) & (choices > targets.sum(2))  # there is somewhere else to go
    share = rows.double() / rows.sum(1, keepdim=True)  # NaN where a prompt has no such row
    spread = targets.sum(2) / choices.clamp(min=1)
    return targets * share[:, :, None], allowed * (spread * share)[:, :, None]


def _under(
    weights: Float[Tensor, "relation batch query key"],
    pattern: Float[Tensor, "batch head query key"],
) -> Float[Tensor, "relation head batch"]:
    return einsum(weights, pattern, "r b q k, b h q k -> r h b")


def _check_causal(patterns: list[Tensor], prompts: Prompts, model: HookedModel) -> None:
    real = prompts.mask[:, None, :, None]  # what padding attends to does not matter
    ahead = max(float((one.triu(1) * real).max()) for one in patterns if one.shape[1])
    if ahead > 1e-6:
        architecture = getattr(model.cfg, "architecture", "this model")
        raise ValueError(
            f"{architecture} attends to later tokens ({ahead:.2g} on one of them): types of heads "
            "are told apart by what they look back to, so they need a causal model"
        )
