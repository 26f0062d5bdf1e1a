"""Where heads attend: to the token before, to what was said before, to one place.

Every score is the attention on the type's targets, meaned over the queries that have one, as in
Wang et al. 2022 (previous and duplicate tokens) and Olsson et al. 2022 (induction: their prefix
matching, with the token after every earlier saying a target, not after the last one alone).
"First token" is the attention sink of Xiao et al. 2023. Heads of one offset or one position are
the positional heads of Voita et al. 2019, who count how often the largest weight is there (90 %
make a head positional) where the weight itself is meaned here; their offsets are -1 and +1.

The null is the same attention with each row shuffled over the tokens it might have gone to, in
closed form: all earlier tokens and its own, but for the first token, which is a type apart. None
of the papers has one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import HookedModel, Prompts, capture_batches, sites
from workbench.heads.kinds.measured import Measured, by_prompt, one_sided
from workbench.heads.naming import Head, every

PREVIOUS, DUPLICATE, INDUCTION = "previous token", "duplicate token", "induction"
FIRST, OFFSET, PLACE = "first token", "fixed offset", "fixed position"
EVERYWHERE = (PREVIOUS, FIRST, OFFSET, PLACE)
"""The types that a head must show on natural prompts too."""

THRESHOLDS: Mapping[str, float] = {
    PREVIOUS: 0.3, DUPLICATE: 0.3, INDUCTION: 0.3, FIRST: 0.5, OFFSET: 0.3, PLACE: 0.3,
}  # fmt: skip
"""Attention beyond the null from which on a head is spoken of."""

PLAIN = (PREVIOUS, DUPLICATE, INDUCTION, FIRST)
"""The types that are one relation, the same for every head."""

OFFSETS = (0, 2, 3, 4, 5, 6, 7, 8)
"""How many tokens back "fixed offset" may look; one back is "previous token"."""

PLACES = (1, 2, 3, 4, 5, 6, 7, 8)
"""Where "fixed position" may look from behind, counted from 0, which is "first token"."""

SHUFFLED = "its attention, each row shuffled over the tokens it might have gone to but the first"
SPREAD_OUT = "its attention, each row shuffled over all tokens it might have gone to"

Relation = Bool[Tensor, "batch query key"]
Pair = tuple[Float[Tensor, "head batch"], Float[Tensor, "head batch"]]
"""Scores and nulls of every head on some prompts."""


@dataclass(frozen=True, eq=False)
class Attention:
    """What each prompt's rows give a relation: NaN where no row of the prompt has a target."""

    score: Float[Tensor, "relation head batch"]
    null: Float[Tensor, "relation head batch"]
    names: list[str]
    heads: list[Head]

    def of(self, relations: Sequence[str]) -> Pair:
        """Of each head the relation that is named for it, on the prompts that have them."""
        rows = torch.tensor([self.names.index(one) for one in relations], dtype=torch.long)
        score, null = (one[rows, torch.arange(len(rows))] for one in (self.score, self.null))
        held = ~score.isnan().any(dim=0)
        return score[:, held], null[:, held]

    def held(self, relations: Iterable[str]) -> Bool[Tensor, " batch"]:
        """Which prompts have all these relations."""
        rows = [self.names.index(one) for one in relations]
        return ~self.score[rows].isnan().any(dim=0).any(dim=0)

    def on(self, prompts: Bool[Tensor, " batch"]) -> "Attention":
        """The same on some of the prompts."""
        return Attention(self.score[..., prompts], self.null[..., prompts], self.names, self.heads)


Chosen = Mapping[str, Sequence[str]]
"""For each type that is one of several relations, the relation of every head."""


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
        FIRST: ((at[None] == 0) & (back > 0)).expand_as(same),
        **{_offset(one): (back == one).expand_as(same) for one in OFFSETS},
        **{_place(one): ((at[None] == one) & (back > 0)).expand_as(same) for one in PLACES},
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
    return Attention(torch.cat(scores, dim=2), torch.cat(nulls, dim=2), names, every(model))


def options(shortest: int) -> dict[str, dict[str, int]]:
    """What types choose from in prompts of at least so many tokens: relation -> how far, where."""
    return {
        OFFSET: {_offset(one): one for one in OFFSETS if one + 2 < shortest},
        PLACE: {_place(one): one for one in PLACES if one + 2 < shortest},
    }


def best(found: Attention, among: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """For each type the relation, of those it chooses from, where each head looks most."""
    effect = (found.score - found.null).nanmean(dim=2)
    chosen = {}
    for type, some in among.items():
        names = list(some)
        most = effect[[found.names.index(one) for one in names]].argmax(dim=0)
        chosen[type] = [names[at] for at in most.tolist()]
    return chosen


def by_type(found: Attention, chosen: Chosen) -> dict[str, Pair]:
    """Score and null of every type of attention, on the prompts that have its targets."""
    width = len(found.heads)
    plain = {name: [name] * width for name in PLAIN}
    return {name: found.of(one) for name, one in {**plain, **chosen}.items()}


def judged(named: Mapping[str, Pair], *, seed: int, together: bool) -> list[Measured]:
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


def _place(at: int) -> str:
    return f"at {at}"


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
