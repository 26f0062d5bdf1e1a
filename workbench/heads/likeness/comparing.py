"""From a model and prompts to how alike every two heads are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from hooks import heads as numbering
from workbench.heads.likeness import chance, outputs, patterns, reading, weights
from workbench.heads.likeness.result import MEASURES, HeadSimilarity
from workbench.heads.naming import Head, checked, every, named
from workbench.tasks import Task
from workbench.tasks.provenance import of_model


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
    How alike heads are by chance is seen in 19 copies of the model whose weights `seed` draws
    anew, which run on the same prompts; of weights it is known in closed form.
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
    grams = reading.grams(model, chosen, read.z, tokens=tokens, seed=seed)
    spaces = {role: weights.spaces(model, chosen, role) for role in ("O", "V", "Q", "K")}
    by_copies = chance.copies(model, task, chosen, tokens=tokens, batch_size=batch_size, seed=seed)
    mean, limit = chance.of_all(by_copies, list(spaces.values()), model.cfg.d_model)
    return HeadSimilarity(
        (read.divergence / read.rows).float(),
        (read.divergence_first / read.rows).float(),
        outputs.cka(grams, grams).float(),
        *[one.kernel().float() for one in spaces.values()],
        divergence_chance=chance.shuffled(read.sample, seed).float(),
        chance=torch.tensor(mean),
        limit=torch.tensor(limit),
        measures=list(MEASURES),
        heads=chosen,
        names=[named(one) for one in chosen],
        group=[_group(model, head) for head in chosen],
        rows=read.rows,
        tokens=grams.shape[1],
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
    size = len(heads)
    rest, first = (torch.zeros(size, size, dtype=torch.double) for _ in range(2))
    rows, zs, sample = 0, [], None
    for found, z in reading.batches(model, task, heads, batch_size):
        parts = found.weight[:, ~found.is_first], found.weight[:, found.is_first]
        rest += patterns.divergences(parts[0], parts[0])
        first += patterns.divergences(parts[1], parts[1])
        rows += found.rows
        zs.append(z)
        sample = found if sample is None else sample
    assert sample is not None
    return _Reading(rest, first, rows, torch.cat(zs, dim=1), sample)


def _group(model: HookedModel, head: Head) -> int:
    """Which key-value head of its layer a head reads."""
    return head[1] // numbering.at(model, head[0]).group
