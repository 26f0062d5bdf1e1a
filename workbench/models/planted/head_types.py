"""One head of each type that attention or a head's own circuit tells.

The induction pair, with heads beside it that no answer depends on:

    first token       attends to "<s>" wherever it is
    duplicate token   attends to the first saying of a word that was said before, else to "<s>"
    fixed position    attends to the token at `POSITION`, before there is one to "<s>"
    copy-suppressing  attends `BACK` tokens back, and argues against what it finds there

The first three write into the scratch alone. The last one lowers the logit of a word that is
neither answer nor foil.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.planted import induction as recipe
from workbench.models.planted.truth import Head, Truth, exactly
from workbench.models.planted.wiring import HARD, Blueprint, Space, Wires, filled, places

POSITION, BACK = 3, 2
"""Where the head of one position looks, and how far back the copy-suppressing one."""

STRENGTH = 8.0
"""Nats: what the induction head gives the answer, and the copy-suppressing one takes."""

_LATE, _SINK = recipe.WIDTH - 2, recipe.WIDTH - 1  # columns of a head that name no token
_ROOT = recipe.WIDTH**0.5


def head_types(name: str, generator: torch.Generator) -> tuple[Blueprint, Truth]:
    """Two layers: four heads that look at a place or a word, then two that read and write words."""
    plan = recipe.space()
    order = places(2, 6, generator)
    before, first, duplicate, position = order[0][:4]
    after, against = order[1][:2]
    wired = {
        before: recipe.previous_token(plan),
        first: _unread(plan, *_first_token(plan), generator),
        duplicate: _unread(plan, *_duplicate_token(plan), generator),
        position: _unread(plan, *_fixed_position(plan), generator),
        after: recipe.induction(plan),
        against: _against(plan),
    }
    layers, idle = filled(plan, wired, order, generator=generator)
    parts = recipe.edges(before, [after])
    truth = Truth(
        name,
        "an induction pair, and beside it one head of each type of attention",
        "induction",
        {
            "previous token": (before,), "first token": (first,),
            "duplicate token": (duplicate,), "fixed position": (position,),
            "induction": (after,), "copy-suppressing": (against,), **idle,
        },
        (
            exactly((), "noising", STRENGTH),
            exactly((), "denoising", 0.0),
            *(
                exactly((head,), how, left)
                for head, left in {before: 0.0, after: 0.0, first: STRENGTH, duplicate: STRENGTH,
                                   position: STRENGTH}.items()
                for how in ("zero", "mean", "noising")
            ),
            exactly((against,), "zero", STRENGTH),
            exactly((after,), "denoising", STRENGTH),
        ),
        circuit=parts | recipe.constants(before, [after]) | _own(against),
        noising=parts,
        denoising=frozenset({f"{recipe.named(after)}->logits"}),
        residual={**recipe.nowhere(2), (1, "PREVIOUS"): STRENGTH},
    )  # fmt: skip
    return recipe.blueprint(plan, layers, reads={"out": STRENGTH}, generator=generator), truth


def _first_token(plan: Space) -> tuple[Tensor, Tensor]:
    """Queries and keys: wherever it is, to the start."""
    q = plan.columns(recipe.WIDTH, ("one", _SINK, HARD * _ROOT))
    return q, plan.columns(recipe.WIDTH, ("start", _SINK, 1.0))


def _fixed_position(plan: Space) -> tuple[Tensor, Tensor]:
    """Queries and keys: to one position, or else to the start."""
    q = plan.columns(
        recipe.WIDTH, ("one", 0, HARD * _ROOT), ("one", _SINK, HARD / 2 * _ROOT)
    )  # fmt: skip
    k = plan.columns(recipe.WIDTH, ("start", _SINK, 1.0))
    k[plan.part("position").start + POSITION, 0] = 1.0
    return q, k


def _duplicate_token(plan: Space) -> tuple[Tensor, Tensor]:
    """Queries and keys: to the earliest token that is the same, but to the start before itself.

    Sameness outweighs any distance; among the same, each token further back is ahead by HARD;
    the start stands half that ahead of the token itself, and behind the one before it.
    """
    same = HARD * (recipe.ROOM + 1)
    q = plan.columns(recipe.WIDTH, ("token", 0, same * _ROOT), ("one", _LATE, HARD * _ROOT))
    k = plan.columns(recipe.WIDTH, ("token", 0, 1.0), ("start", _SINK, 1.0))
    at = torch.arange(recipe.ROOM, dtype=q.dtype)
    q[plan.part("position"), _SINK] = (same - HARD * (at - 0.5)) * _ROOT
    k[plan.part("position"), _LATE] = -at
    return q, k


def _unread(
    plan: Space,
    q: Float[Tensor, "d_model d_head"],
    k: Float[Tensor, "d_model d_head"],
    generator: torch.Generator,
) -> Wires:
    """A head that mixes what it attends to at random, and writes it into the scratch."""
    v = 0.3 * torch.randn(q.shape, generator=generator)
    o = torch.zeros_like(q)
    scratch = plan.part("scratch")
    o[scratch] = 0.05 * torch.randn(o[scratch].shape, generator=generator)
    return Wires(q, k, v, o)


def _against(plan: Space) -> Wires:
    """Attends so many tokens back, and takes from the logit of the word there."""
    says = recipe.induction(plan, gain=-1.0)
    here = recipe.previous_token(plan)
    q = plan.columns(recipe.WIDTH, ("position", -BACK, float(here.q.max())))
    return Wires(q, here.k, says.v, says.o, back=BACK)


def _own(head: Head) -> frozenset[str]:
    """What the copy-suppressing head reads and writes: the same in clean and corrupt prompts."""
    named = recipe.named(head)
    return frozenset({*(f"input->{named}<{part}>" for part in "qkv"), f"{named}->logits"})
