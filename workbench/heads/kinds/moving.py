"""Which heads name the indirect object, and which keep the subject from being named.

On prompts with the roles IO, S2 and END (Wang et al. 2022). A name mover attends from END to IO
and writes there what favours IO; a negative one writes against it. An S-inhibition head attends
from END to S2 and writes nothing that the logits hear, but what later heads heed.
"""

from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel, Site, capture, edits
from hooks import heads as numbering
from workbench import effects, metrics, statistics
from workbench.heads.kinds.measured import Measured, both_ways, one_sided, per_query_head
from workbench.heads.kinds.reading import Hearing
from workbench.heads.naming import Head
from workbench.tasks import Task

MOVER, NEGATIVE_MOVER, INHIBITION = "name mover", "negative name mover", "S-inhibition"
ROLES = ("IO", "S2", "END")

SHARE = 0.05
"""Of the model's logit difference: what a head must add to it, or take from it, to be named."""

SHUFFLED = "the same writing, its attention from END shuffled over the tokens but the first"
ELSEWHERE = "the same attention from END, on another token drawn for each prompt"


@dataclass(frozen=True, eq=False)
class Moved:
    """What every head carries from IO, S2 and another token to END, and its attention there."""

    attention: Float[Tensor, "role head batch"]
    others: Float[Tensor, "head batch"]  # mean attention from END to a token but the first
    direct: Float[Tensor, "role head batch"]  # nats written for the answer, at full attention
    carried: dict[Head, Float[Tensor, "batch d_head"]]  # z at END that came from S2
    elsewhere: dict[Head, Float[Tensor, "batch d_head"]]  # had it looked at the other token so much
    z: dict[int, Float[Tensor, "batch 1 column d_head"]]
    columns: dict[Head, int]
    difference: float  # mean size of the model's logit difference

    @property
    def heads(self) -> list[Head]:
        """The heads, in the order of all that is measured."""
        return list(self.columns)


def check(task: Task) -> None:
    """Raise unless the prompts have the roles, and one answer and foil each."""
    missing = [role for role in ROLES if role not in task.positions]
    if missing:
        raise ValueError(f"{task.name} has no role {missing[0]}: tasks.ioi has {', '.join(ROLES)}")
    if task.answer.shape[1] > 1 or task.foil.shape[1] > 1:
        raise ValueError(f"{task.name} has sets of answers or foils, whose logits do not add up")


@torch.no_grad()
def moved(model: HookedModel, task: Task, *, batch_size: int, seed: int = 0) -> Moved:
    """Read what moves to the last position, one batch at a time; `seed` draws other tokens."""
    check(task)
    hearing, elsewhere = Hearing.of(model), other_tokens(task, seed=seed)
    parts = [
        _moved(model, task[rows], hearing, elsewhere[rows])
        for start in range(0, len(task), batch_size)
        for rows in [list(range(start, min(start + batch_size, len(task))))]
    ]

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(one, name) for one in parts], dim=-1)

    def by_head(name: str) -> dict[Head, Tensor]:
        return {
            head: torch.cat([getattr(one, name)[head] for one in parts])
            for head in parts[0].columns
        }

    return Moved(
        joined("attention"),
        joined("others"),
        joined("direct"),
        by_head("carried"),
        by_head("elsewhere"),
        {layer: torch.cat([one.z[layer] for one in parts]) for layer in parts[0].z},
        parts[0].columns,
        sum(one.difference * one.attention.shape[-1] for one in parts) / len(task),
    )


def other_tokens(task: Task, *, seed: int) -> Int[Tensor, " batch"]:
    """For each prompt a token before END that is neither the first nor one of the names."""
    generator = statistics.derive(seed, "types", "other tokens")
    at = torch.arange(task.clean.tokens.shape[1])
    names = torch.stack([task.positions[one] for one in task.positions if one != "END"]).cpu()
    allowed = (at > 0) & (at < task.positions["END"].cpu()[:, None])
    allowed = allowed & (at != names[..., None]).all(0)
    if not bool(allowed.any(1).all()):
        raise ValueError(f"{task.name} has a prompt of nothing but names: there is no other token")
    return allowed.double().multinomial(1, generator=generator)[:, 0]


def movers(found: Moved, *, seed: int) -> list[Measured]:
    """Name movers and negative ones: attention to IO times what is written for the answer."""
    score = found.attention[0] * found.direct[0]
    null = found.others * found.direct[0]
    bounds = statistics.bounds(score - null, seed=seed)
    p = statistics.permutation_test(score - null, seed=seed).corrected
    mover = Measured(
        MOVER, "nats", SHUFFLED, SHARE * found.difference, score.mean(1), null.mean(1),
        bounds.low, bounds.high, p,
    )  # fmt: skip
    return both_ways(mover, NEGATIVE_MOVER)


def inhibition(
    model: HookedModel, task: Task, found: Moved, *, memory: str | int, seed: int
) -> Measured:
    """What is lost, beyond its direct part, when what a head moves from S2 to END is left out.

    Less what is lost as much when what it would have moved from another token is left out.
    """
    cells = [
        _without(task, found, head, what[head])
        for what in (found.carried, found.elsewhere)
        for head in found.heads
    ]
    effect = effects.exact(
        model, task, cells, metrics=[metrics.logit_diff], memory=memory, seed=seed
    ).effect[0]
    lost = rearrange(-effect.double(), "(where head) batch -> where head batch", where=2)
    score, null = lost - found.attention[1] * found.direct[1:]
    bounds = statistics.bounds(score - null, seed=seed)
    p = statistics.permutation_test(score - null, seed=seed).corrected
    return Measured(
        INHIBITION, "nats", ELSEWHERE, SHARE * found.difference, score.mean(1), null.mean(1),
        bounds.low, bounds.high, one_sided(p, (score - null).mean(1)),
    )  # fmt: skip


def _without(
    task: Task, found: Moved, head: Head, moved: Float[Tensor, "batch d_head"]
) -> dict[Site, edits.Edit]:
    layer, number = head
    z, column = found.z[layer], found.columns[head]
    left = z[:, :, column] - moved[:, None]
    whole = left[:, :, None].expand(z.shape)  # only this head's part of it is written
    edit = edits.replace(whole, heads=[number], positions=task.positions["END"])
    return {Site("z", layer): edit}


def _moved(
    model: HookedModel, task: Task, hearing: Hearing, elsewhere: Int[Tensor, " batch"]
) -> Moved:
    layers = range(model.cfg.n_layers)
    wanted = [Site(stream, layer) for layer in layers for stream in ("pattern", "z", "v")]
    seen = capture(model, task.clean, [*wanted, Site("final")])
    rows = torch.arange(len(task), device=seen.prompts.tokens.device)
    io, s2, end = (task.positions[role].to(rows.device) for role in ROLES)
    places = (io, s2, elsewhere.to(rows.device))
    scale = hearing.scale(seen[Site("final")][rows, end])
    towards = hearing.directions(task.answer[:, 0]) - hearing.directions(task.foil[:, 0])
    towards = towards * scale[:, None]
    attention, others, direct, zs, columns = [], [], [], {}, {}
    carried, moving = {}, {}
    for layer in layers:
        pattern = seen[Site("pattern", layer)][rows, :, end].double()
        z = seen[Site("z", layer)]
        value = per_query_head(seen[Site("v", layer)], numbering.at(model, layer))
        at = torch.stack([pattern[rows, :, one] for one in places])
        read = torch.stack([value[rows, one] for one in places])
        out = einsum(
            read.double(), model.blocks[layer].attn.W_O.double(), towards,
            "r b h d, h d m, b m -> r h b",
        )  # fmt: skip
        attention.append(rearrange(at, "r b h -> r h b"))
        others.append((pattern[:, :, 1:].sum(2) / end[:, None]).T)
        direct.append(out)
        zs[layer] = z[rows, end][:, None]
        for column, head in enumerate(seen.heads(Site("z", layer))):
            there = at[1, :, column, None].to(z.dtype)
            carried[layer, head], moving[layer, head] = there * read[1:, :, column]
            columns[layer, head] = column
    last = seen[Site("final")][rows, end]
    difference = (towards * last.double()).sum(1).abs().mean()
    return Moved(
        torch.cat(attention, dim=1).cpu(), torch.cat(others).cpu(), torch.cat(direct, dim=1).cpu(),
        carried, moving, zs, columns, float(difference),
    )  # fmt: skip
