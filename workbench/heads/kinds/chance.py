"""Where do heads attend that were never trained? The same types, on the model's weights redrawn.

Shuffled rows are what attention that heeds nothing would give. Heads with random weights heed
something too, a word or a place, so that many are surely beyond shuffled rows, and some far
beyond. So each type's heads are also held against those of copies of the model whose weights were
drawn anew: a model that was never trained is one more such copy.

Of each copy only the head that goes furthest counts, of all its heads: a head that beats it in 19
of 19 copies has p = 1/20 for the whole family of heads, and needs no further correction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Prompts
from workbench import models, statistics
from workbench.heads.kinds import attending
from workbench.heads.kinds.measured import Measured

PROMPTS = 8
"""Of each kind that the copies are asked; fewer are noisier, so it is cautious."""

AND_REDRAWN = "; and the heads of the model with its weights redrawn"

Furthest = Mapping[str, Float[Tensor, " copy"]]
"""For each type the largest effect that any head of each copy has."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Some prompts, and the types whose attention can be seen in them."""

    prompts: Prompts
    types: list[str]

    @classmethod
    def of(
        cls, prompts: Prompts, found: attending.Attention, chosen: attending.Chosen,
        types: Iterable[str],
    ) -> "Asked":  # fmt: skip
        """The first prompts that have all that these types look for; all prompts if none has."""
        types = list(types)
        held = found.held({one for type in types for one in chosen.get(type, [type])})
        rows = held.nonzero()[:PROMPTS, 0] if bool(held.any()) else torch.arange(len(prompts))
        return cls(prompts[rows], types)


def needed(level: float) -> int:
    """How many copies it takes that p can be as small as `level`: 19 for 0.05."""
    return max(1, ceil(1 / level - 1e-9) - 1)


@torch.no_grad()
def furthest(
    model: HookedModel,
    drawn: Asked,
    natural: Asked,
    *,
    among: Mapping[str, Iterable[str]],
    count: int,
    batch_size: int,
    seed: int,
) -> tuple[Furthest, Furthest]:
    """How far any head of `count` copies goes on drawn and on natural prompts, by type.

    A copy's offsets and positions are chosen on the drawn prompts themselves, so that they go a
    little further there than those of the model, which were chosen on others: cautious again.
    """
    among = {type: list(some) for type, some in among.items()}
    names = [*attending.PLAIN, *(one for some in among.values() for one in some)]
    rows = []
    with models.redrawn(model) as draw:
        for at in range(count):
            draw(statistics.derive(seed, "types", "copy", str(at)).initial_seed())
            here, there = (
                attending.attention(model, one.prompts, names, batch_size=batch_size)
                for one in (drawn, natural)
            )
            chosen = attending.best(here, among)
            rows.append((_most(here, chosen, drawn.types), _most(there, chosen, natural.types)))
    first, second = (
        {type: torch.stack([one[type] for one in some]) for type in asked.types}
        for some, asked in zip(zip(*rows, strict=True), (drawn, natural), strict=True)
    )
    return first, second


def against(found: Sequence[Measured], copies: Furthest, *, together: bool) -> list[Measured]:
    """The same with the larger of two p-values: its own, and that of the copies.

    The latter is (1 + copies of which a head goes as far) / (1 + copies), and so at least
    1 / (1 + copies); for all types at once where `together`, each in units of how far its best
    heads go (Westfall & Young 1993).
    """
    unit = {one.type: _unit(one, copies[one.type]) if together else 1.0 for one in found}
    scaled = {type: copies[type] / one for type, one in unit.items()}
    joint = torch.stack(list(scaled.values())).amax(0) if together else None
    held = []
    for one in found:
        least = one.effect.double() / unit[one.type] - 1e-12
        far = scaled[one.type] if joint is None else joint
        beaten = ~(far[:, None] < least)  # a copy without a number counts against
        p = (1 + beaten.sum(0).double()) / (1 + len(far))
        held.append(replace(one, p=torch.maximum(one.p, p), null_is=one.null_is + AND_REDRAWN))
    return held


def _unit(one: Measured, far: Float[Tensor, " copy"]) -> float:
    """The root mean square of how far the best head goes, here and in the copies."""
    most = torch.cat([far, one.effect.double().amax().clamp(min=0)[None]])
    return float(most.square().mean().sqrt()) or 1.0


def _most(
    found: attending.Attention, chosen: attending.Chosen, types: Sequence[str]
) -> dict[str, Tensor]:
    """The largest effect of any head, by type."""
    pairs = attending.by_type(found, chosen)
    return {
        type: (pairs[type][0] - pairs[type][1]).mean(1).amax().clamp(min=0).double()
        for type in types
    }
