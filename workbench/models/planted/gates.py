"""AND and OR of two heads: each finds one word, and an MLP joins what they found.

"the RAIN and then HOSE today so" is wet. One head finds a word of weather, the other one of the
garden; each adds a bit to the last position. Taking one of two causes away shows the parts of an
AND and hides those of an OR; bringing one back shows those of an OR and hides those of an AND.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.planted import vocabulary
from workbench.models.planted.truth import Edge, Head, How, Truth, exactly
from workbench.models.planted.wiring import (
    HARD,
    Blueprint,
    Neurons,
    Space,
    Wires,
    filled,
    idle_mlp,
    places,
    unembedding,
)

_HEADS, _WIDTH, _ROOM = 4, 16, 48
STRENGTH = 4.0
"""The logit difference in nats where a bit is read as 1; where it is 0, minus this."""
_WORDS = (*vocabulary.SPECIAL, *vocabulary.GATE)
_ABLATIONS: tuple[How, ...] = ("zero", "mean", "noising")


def gate(
    name: str, generator: torch.Generator, *, kind: Literal["and", "or"]
) -> tuple[Blueprint, Truth]:
    """Two heads in two layers, and an MLP after them that says AND or OR."""
    space = Space.of(
        one=1, start=1, weather=1, rains=1, garden=1, waters=1, rain_seen=1, water_seen=1, wet=1
    )
    order = places(2, _HEADS, generator)
    first, second = order[0][0], order[1][0]
    wired = {
        first: _finder(space, "weather", "rains", "rain_seen"),
        second: _finder(space, "garden", "waters", "water_seen"),
    }
    layers, idle = filled(space, wired, order, generator=generator)
    unembed = unembedding(space, _WORDS, generator)
    says(space, unembed, "wet", yes=vocabulary.YES, no=vocabulary.NO, words=_WORDS)
    mlps = (idle_mlp(space, generator), _joining(space, kind, generator))
    position = torch.zeros(_ROOM, space.width)
    plan = Blueprint(_WORDS, space, _embedding(space), position, layers, unembed, mlps)
    return plan, _truth(name, kind, first, second, idle)


def says(
    space: Space,
    unembed: Float[Tensor, "d_model vocab"],
    bit: str,
    *,
    yes: str,
    no: str,
    words: Sequence[str],
) -> None:
    """Let two logits read a bit: their difference is plus `STRENGTH` for 1, minus it for 0."""
    for word, sign in ((yes, 1.0), (no, -1.0)):
        unembed[space.part(bit), words.index(word)] = sign * STRENGTH
        unembed[space.part("one"), words.index(word)] = -sign * STRENGTH / 2


def _embedding(space: Space) -> Float[Tensor, "vocab d_model"]:
    marks = {
        "weather": (*vocabulary.FIRST_ON, *vocabulary.FIRST_OFF), "rains": vocabulary.FIRST_ON,
        "garden": (*vocabulary.SECOND_ON, *vocabulary.SECOND_OFF),
        "waters": vocabulary.SECOND_ON, "one": _WORDS, "start": ("<s>",),
    }  # fmt: skip
    embed = torch.zeros(len(_WORDS), space.width)
    for mark, marked in marks.items():
        for word in marked:
            embed[_WORDS.index(word), space.part(mark)] = 1
    return embed


def _finder(space: Space, kind: str, what: str, to: str) -> Wires:
    """Attends to the word of this kind (to the start where there is none) and reads its bit."""
    hard = HARD * _WIDTH**0.5
    return Wires(
        q=space.columns(_WIDTH, ("one", 0, hard), ("one", 1, hard / 2)),
        k=space.columns(_WIDTH, (kind, 0, 1.0), ("start", 1, 1.0)),
        v=space.columns(_WIDTH, (what, 0, 1.0)),
        o=space.columns(_WIDTH, (to, 0, 1.0)),
    )


def _joining(space: Space, kind: Literal["and", "or"], generator: torch.Generator) -> Neurons:
    """OR is relu(a + b) - relu(a + b - 1); AND is the second of the two alone."""
    mlp = idle_mlp(space, generator)
    for neuron, (threshold, factor) in enumerate(((0.0, 1.0), (1.0, -1.0))):
        if kind == "and":
            factor = 1.0 if threshold else 0.0
        mlp.reads[:, neuron] = space.columns(1, ("rain_seen", 0, 1.0), ("water_seen", 0, 1.0))[:, 0]
        mlp.bias[neuron] = -threshold
        mlp.writes[:, neuron] = space.columns(1, ("wet", 0, factor))[:, 0]
    return mlp


def _truth(
    name: str,
    kind: Literal["and", "or"],
    first: Head,
    second: Head,
    idle: dict[str, tuple[Head, ...]],
) -> Truth:
    one, other = (f"a{layer}.h{head}" for layer, head in (first, second))
    parts: set[Edge] = {
        f"input->{one}<v>", f"{one}->m1", f"input->{other}<v>", f"{other}->m1", "m1->logits",
    }  # fmt: skip
    constant = {f"input->{head}<{part}>" for head in (one, other) for part in "qk"}
    with_one = STRENGTH if kind == "or" else -STRENGTH
    both = (first, second)
    return Truth(
        name,
        f"{kind.upper()} of two heads, joined by an MLP",
        "gate",
        {"first": (first,), "second": (second,), **idle},
        (
            exactly((), "noising", STRENGTH),
            exactly((), "denoising", -STRENGTH),
            *(exactly((head,), how, with_one) for head in both for how in _ABLATIONS),
            *(exactly((head,), "denoising", with_one) for head in both),
            *(exactly(both, how, -STRENGTH) for how in _ABLATIONS),
            exactly(both, "denoising", STRENGTH),
        ),
        circuit=frozenset(parts | constant | {"input->logits"}),
        noising=frozenset(parts if kind == "and" else {"m1->logits"}),
        denoising=frozenset(parts if kind == "or" else {"m1->logits"}),
        residual={
            (0, "FIRST"): with_one, (0, "SECOND"): with_one, (0, "END"): -STRENGTH,
            (1, "FIRST"): -STRENGTH, (1, "SECOND"): with_one, (1, "END"): with_one,
        },
    )  # fmt: skip
