"""From a model and prompts to how alike every two heads are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Site, capture_batches, sites
from hooks import heads as numbering
from workbench import statistics
from workbench.heads.likeness import outputs, patterns, weights
from workbench.heads.likeness.result import LEAST_DIVERGENCE, MEASURES, HeadSimilarity
from workbench.heads.naming import Head, checked, column, every, named, output_matrix
from workbench.tasks import Task
from workbench.tasks.provenance import of_model

_DRAWS = 19
"""So that the most extreme of them is what chance exceeds in 5 % of draws."""
_ROWS = 40
"""Rows of attention that are shuffled for the null: fewer are noisier, so it is cautious."""


@torch.no_grad()
def similarity(
    model: HookedModel,
    task: Task,
    *,
    heads: Sequence[Head] | None = None,
    tokens: int = 256,
    batch_size: int = 16,
    seed: int = 0,
) -> HeadSimilarity:
    """Compare every two of `heads` (all of the model's, unless they are named).

    Attention is compared on every row of the clean prompts, one batch after the other; outputs on
    `tokens` of their tokens, drawn with `seed`; neither on first tokens. Weights need no prompts.
    """
    chosen = every(model) if heads is None else checked(model, heads)
    if len(chosen) < 2:
        raise ValueError(f"{len(chosen)} heads were given: similarity needs at least two")
    if int(task.clean.lengths.max()) < 3:
        raise ValueError(
            f"{task.name} has prompts of at most {int(task.clean.lengths.max())} tokens: beside "
            "the first there must be two to attend to"
        )
    read = _read(model, task, chosen, batch_size)
    z = _some(read.z, tokens, seed)
    grams = outputs.grams(z.double(), _written(model, chosen))
    spaces = {role: weights.bases(model, chosen, role) for role in ("O", "V", "Q", "K")}
    nulls = _nulls(read, grams, spaces, model.cfg.d_model, seed)
    overlaps = [weights.kernel(one).float() for one in spaces.values()]
    return HeadSimilarity(
        (read.divergence / read.rows).float(),
        (read.divergence_first / read.rows).float(),
        outputs.cka(grams, grams).float(),
        *overlaps,
        divergence_chance=nulls.divergence.float(),
        chance=torch.tensor(nulls.chance),
        limit=torch.tensor(nulls.limit),
        measures=list(MEASURES),
        heads=chosen,
        names=[named(one) for one in chosen],
        group=[_group(model, head) for head in chosen],
        rows=read.rows,
        tokens=z.shape[1],
        task=task.name,
        task_digest=task.digest,
        **of_model(model),
    )


@dataclass
class _Reading:
    """What one pass over the prompts leaves: sums, and every token's z."""

    divergence: Float[Tensor, "head other"]
    divergence_first: Float[Tensor, "head other"]
    rows: int
    z: Float[Tensor, "head token d_head"]
    sample: patterns.Rows


def _read(model: HookedModel, task: Task, heads: list[Head], batch_size: int) -> _Reading:
    wanted = [*sites.all(model, "pattern"), *sites.all(model, "z")]
    last = max(layer for layer, _ in heads)
    wanted = [site for site in wanted if site.layer <= last]
    size = len(heads)
    rest, first = (torch.zeros(size, size, dtype=torch.double) for _ in range(2))
    rows, zs, sample = 0, [], None
    for seen in capture_batches(model, task.clean.batches(batch_size), wanted):
        found = patterns.Rows.of(model, seen, heads)
        parts = found.weight[:, ~found.is_first], found.weight[:, found.is_first]
        rest += patterns.divergences(parts[0], parts[0])
        first += patterns.divergences(parts[1], parts[1])
        rows += found.rows
        real = seen.prompts.mask.bool()
        real[:, 0] = False
        each = [seen[Site("z", one[0])][:, :, column(model, one)] for one in heads]
        zs.append(torch.stack([one[real] for one in each]).cpu())
        sample = found if sample is None else sample
    assert sample is not None
    return _Reading(rest, first, rows, torch.cat(zs, dim=1), sample)


def _some(
    z: Float[Tensor, "head token d_head"], tokens: int, seed: int
) -> Float[Tensor, "head chosen d_head"]:
    order = torch.randperm(z.shape[1], generator=statistics.derive(seed, "similarity", "tokens"))
    return z[:, order[:tokens].sort().values]


def _written(model: HookedModel, heads: list[Head]) -> Float[Tensor, "head d_head d_model"]:
    return torch.stack([output_matrix(model, head) for head in heads]).double().cpu()


def _group(model: HookedModel, head: Head) -> int:
    """Which key-value head of its layer a head reads."""
    return head[1] // numbering.at(model, head[0]).group


@dataclass(frozen=True)
class _Nulls:
    """What unrelated heads have: for each measure the mean, and the most alike of all pairs."""

    chance: list[float]
    limit: list[float]
    divergence: Float[Tensor, "head other"]


def _nulls(
    read: _Reading,
    grams: Float[Tensor, "head token token"],
    spaces: dict[str, list[Tensor]],
    d_model: int,
    seed: int,
) -> _Nulls:
    generator = statistics.derive(seed, "similarity", "null")
    divergence, least = _divergence_by_chance(read.sample, generator)
    output = [_cka_by_chance(grams, generator) for _ in range(_DRAWS)]
    chance = [_apart(divergence)[0], sum(mean for mean, _ in output) / _DRAWS]
    limit = [least, max(most for _, most in output)]
    pairs = len(grams) * (len(grams) - 1) // 2
    for one in spaces.values():
        rank = max(space.shape[1] for space in one)
        mean, most = weights.by_chance(d_model, rank, pairs, level=1 / (_DRAWS + 1))
        chance.append(mean)
        limit.append(most)
    return _Nulls(chance, limit, divergence)


def _divergence_by_chance(
    rows: patterns.Rows, generator: torch.Generator
) -> tuple[Float[Tensor, "head other"], float]:
    """Each head against the others' shuffled rows: the mean of draws, and their least share of it.

    By pair, because two heads that rest on the first token differ little however the rest lies.
    """
    kept = rows.row <= rows.row.unique()[:_ROWS].max()
    number = int(rows.row[kept].unique().numel())
    some = patterns.Rows(rows.weight[:, kept], rows.is_first[kept], rows.row[kept], number)
    rest = ~some.is_first
    draws = []
    for _ in range(_DRAWS):
        moved = patterns.shuffled(some, generator)[:, rest]
        found = patterns.divergences(some.weight[:, rest], moved) / number
        draws.append((found + found.T) / 2)
    mean = torch.stack(draws).mean(0)
    off = ~torch.eye(len(mean), dtype=torch.bool) & (mean > LEAST_DIVERGENCE)
    if not bool(off.any()):
        return mean, 0.0
    return mean, min(float((one / mean)[off].min()) for one in draws)


def _cka_by_chance(
    grams: Float[Tensor, "head token token"], generator: torch.Generator
) -> tuple[float, float]:
    """Heads against others whose tokens are shuffled: the mean and the largest CKA."""
    order = torch.randperm(grams.shape[1], generator=generator)
    return _apart(outputs.cka(grams, grams[:, order][:, :, order]))


def _apart(found: Float[Tensor, "head other"]) -> tuple[float, float]:
    """The mean and the largest of two different heads."""
    a, b = torch.triu_indices(len(found), len(found), offset=1)
    values = rearrange(torch.stack([found[a, b], found[b, a]]), "way pair -> (way pair)")
    values = values[~values.isnan()]
    if not len(values):
        return float("nan"), float("nan")
    return float(values.mean()), float(values.max())
