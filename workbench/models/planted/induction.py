"""Two heads that compose: one notes each token's predecessor, the next one looks that note up.

Nothing is trained. Tokens and positions are one-hot, attention is all or nothing, and a query
that finds nothing attends to "<s>", which holds nothing.
"""

from collections.abc import Mapping

import torch

from workbench.models.planted import vocabulary
from workbench.models.planted.truth import Edge, Head, Truth, exactly
from workbench.models.planted.wiring import (
    HARD,
    Blueprint,
    Space,
    Wires,
    filled,
    places,
    unembedding,
)

WORDS = (*vocabulary.SPECIAL, *vocabulary.ORDINARY)
ROOM, WIDTH = 48, 52
"""Tokens that fit into a prompt, and the width of a head, whose queries may name each of them."""

MANY = len(vocabulary.ORDINARY)
_SINK = WIDTH - 1  # the column in which a query may ask for "<s>"
_STEEP = HARD * WIDTH**0.5
_STRENGTH = 8.0  # the logit difference in nats


def pair(name: str, generator: torch.Generator, *, sharing: int = 1) -> tuple[Blueprint, Truth]:
    """A previous-token head and an induction head, and three irrelevant heads beside each."""
    plan = space()
    order = places(2, 4, generator, sharing=sharing)
    before, after = order[0][0], order[1][0]
    wired = {before: previous_token(plan), after: induction(plan)}
    layers, idle = filled(plan, wired, order, generator=generator, sharing=sharing)
    truth = Truth(
        name,
        "a previous-token head, and an induction head that reads its note as keys"
        + shared(sharing),
        "induction",
        {"previous token": (before,), "induction": (after,), **idle},
        (
            exactly((), "noising", _STRENGTH),
            exactly((), "denoising", 0.0),
            *(
                exactly((head,), how, 0.0)
                for head in (before, after)
                for how in ("zero", "mean", "noising")
            ),
            exactly((before,), "denoising", 0.0),
            exactly((after,), "denoising", _STRENGTH),
        ),
        circuit=edges(before, [after], sharing=sharing)
        | constants(before, [after], sharing=sharing),
        noising=edges(before, [after], sharing=sharing),
        denoising=frozenset({f"{named(after)}->logits"}),
        residual={**nowhere(2), (1, "PREVIOUS"): _STRENGTH},
    )
    return blueprint(
        plan, layers, reads={"out": _STRENGTH}, generator=generator, sharing=sharing
    ), truth


def space(**more: int) -> Space:
    """Token, position, two marks, the note, what is said next, and room for what is irrelevant."""
    return Space.of(token=MANY, position=ROOM, one=1, start=1, previous=MANY, out=MANY, **more)


def previous_token(plan: Space) -> Wires:
    """Position i attends to i - 1 and notes which token stands there."""
    return Wires(
        q=plan.columns(WIDTH, ("position", -1, _STEEP)),
        k=plan.columns(WIDTH, ("position", 0, 1.0)),
        v=plan.columns(WIDTH, ("token", 0, 1.0)),
        o=plan.columns(WIDTH, ("previous", 0, 1.0)),
        back=1,
    )


def induction(plan: Space, *, to: str = "out", gain: float = 1.0) -> Wires:
    """Attends to the token whose note is the current token, or else to the start; says it."""
    return Wires(
        q=plan.columns(WIDTH, ("token", 0, _STEEP), ("one", _SINK, _STEEP / 2)),
        k=plan.columns(WIDTH, ("previous", 0, 1.0), ("start", _SINK, 1.0)),
        v=plan.columns(WIDTH, ("token", 0, 1.0)),
        o=plan.columns(WIDTH, (to, 0, gain)),
    )


def unless(plan: Space, head: Wires, part: str) -> Wires:
    """The head, looking at the start instead wherever something stands in `part` of the stream."""
    q = head.q.clone()
    q[plan.part(part), _SINK] += 2 * _STEEP
    return Wires(q, head.k, head.v, head.o)


def blueprint(
    plan: Space,
    layers: tuple[tuple[Wires, ...], ...],
    *,
    reads: Mapping[str, float],
    generator: torch.Generator,
    sharing: int = 1,
) -> Blueprint:
    """The model around the heads; each word's logit reads its place in the parts `reads`."""
    embed = torch.zeros(len(WORDS), plan.width)
    embed[len(vocabulary.SPECIAL) :, plan.part("token")] = torch.eye(MANY)
    embed[:, plan.part("one")] = 1
    embed[WORDS.index("<s>"), plan.part("start")] = 1
    position = torch.zeros(ROOM, plan.width)
    position[:, plan.part("position")] = torch.eye(ROOM)
    unembed = unembedding(plan, WORDS, generator)
    for part, factor in reads.items():
        unembed[plan.part(part), len(vocabulary.SPECIAL) :] = factor * torch.eye(MANY)
    return Blueprint(WORDS, plan, embed, position, layers, unembed, sharing=sharing)


def shared(sharing: int) -> str:
    """What to add to a description under grouped queries."""
    return "" if sharing == 1 else f"; {sharing} heads share keys and values"


def named(head: Head) -> str:
    """A head as edges name it."""
    return f"a{head[0]}.h{head[1]}"


def edges(
    before: Head, after: list[Head], *, reader: str = "logits", sharing: int = 1
) -> frozenset[Edge]:
    """What carries the answer: tokens into the note, the note into keys, tokens into values."""
    found = {f"input->{_shared(before, sharing)}<v>"}
    for head in after:
        keys = _shared(head, sharing)
        found |= {f"{named(before)}->{keys}<k>", f"input->{keys}<v>", f"{named(head)}->{reader}"}
    return frozenset(found)


def constants(before: Head, after: list[Head], *, sharing: int = 1) -> frozenset[Edge]:
    """What carries positions, marks and the last token: the same in clean and corrupt prompts."""
    found = {f"input->{named(before)}<q>", f"input->{_shared(before, sharing)}<k>"}
    for head in after:
        found |= {f"input->{named(head)}<q>", f"input->{_shared(head, sharing)}<k>"}
    return frozenset(found)


def nowhere(layers: int) -> dict[tuple[int, str], float]:
    """No single place restores anything; what does is to be written over this."""
    roles = ("EARLIER", "PREVIOUS", "END")
    return {(layer, role): 0.0 for layer in range(layers) for role in roles}


def _shared(head: Head, sharing: int) -> str:
    return named((head[0], head[1] // sharing))
