"""A small program, compiled by hand: are these brackets balanced?

    depth       the mean over all tokens so far of +1 for "(" and -1 for ")"     head of layer 0
    below       depth < 0                                                        MLP 0
    above       depth > 0                                                        MLP 0
    ever below  the mean over all tokens so far of `below`                       head of layer 1
    unbalanced  (ever below) > 0 or above                                        MLP 1

In the manner of RASP (Weiss et al. 2021): means are attention that looks everywhere alike,
comparisons are two rectified neurons each.
"""

import torch

from workbench.models.planted import vocabulary
from workbench.models.planted.gates import STRENGTH, says
from workbench.models.planted.induction import named
from workbench.models.planted.truth import Truth, exactly
from workbench.models.planted.wiring import (
    Blueprint,
    Neurons,
    Space,
    Wires,
    filled,
    idle_mlp,
    places,
    unembedding,
)

_WORDS = (*vocabulary.SPECIAL, *vocabulary.BRACKETS)
_HEADS, _WIDTH, _ROOM = 3, 16, 48
_STEEP = 4.0 * _ROOM  # so that 1 / _ROOM, the smallest mean there is, is far above the threshold


def brackets(name: str, generator: torch.Generator) -> tuple[Blueprint, Truth]:
    """The program above in two layers, with two irrelevant heads beside each of its own."""
    space = Space.of(one=1, bracket=1, depth=1, below=1, above=1, ever_below=1, unbalanced=1)
    order = places(2, _HEADS, generator)
    depth, ever = order[0][0], order[1][0]
    wired = {depth: _mean(space, "bracket", "depth"), ever: _mean(space, "below", "ever_below")}
    layers, idle = filled(space, wired, order, generator=generator)
    unembed = unembedding(space, _WORDS, generator)
    says(
        space, unembed, "unbalanced",
        yes=vocabulary.UNBALANCED, no=vocabulary.BALANCED, words=_WORDS,
    )  # fmt: skip
    embed = torch.zeros(len(_WORDS), space.width)
    embed[:, space.part("one")] = 1
    for word, sign in ((vocabulary.OPEN, 1), (vocabulary.CLOSE, -1)):
        embed[_WORDS.index(word), space.part("bracket")] = sign
    mlps = (
        _steps(space, generator, {"below": {"depth": -1.0}, "above": {"depth": 1.0}}),
        _steps(space, generator, {"unbalanced": {"ever_below": 1.0, "above": 1.0}}),
    )
    plan = Blueprint(_WORDS, space, embed, torch.zeros(_ROOM, space.width), layers, unembed, mlps)
    first, second = named(depth), named(ever)
    parts = frozenset({
        f"input->{first}<v>", f"{first}->m0", f"m0->{second}<v>", f"{second}->m1", "m0->m1",
        "m1->logits",
    })  # fmt: skip
    truth = Truth(
        name,
        "a program compiled by hand, which judges whether brackets are balanced",
        "brackets",
        {"depth": (depth,), "ever below": (ever,), **idle},
        (
            exactly((), "noising", STRENGTH),
            exactly((), "denoising", -STRENGTH),
            # Without any depth nothing is unbalanced.
            *(exactly((head,), "zero", STRENGTH) for head in (depth, ever)),
            exactly((depth,), "noising", -STRENGTH),
            exactly((depth,), "denoising", STRENGTH),
        ),
        circuit=parts | {"input->logits"},
        noising=parts,
        denoising=parts,
    )
    return plan, truth


def _mean(space: Space, what: str, to: str) -> Wires:
    """Attends to all tokens so far alike."""
    nothing = torch.zeros(space.width, _WIDTH)
    return Wires(
        nothing,
        nothing,
        space.columns(_WIDTH, (what, 0, 1.0)),
        space.columns(_WIDTH, (to, 0, 1.0)),
    )


def _steps(space: Space, generator: torch.Generator, bits: dict[str, dict[str, float]]) -> Neurons:
    """Bits that are 1 where the sum of what they read is at least 1 / _ROOM, 0 where it is not."""
    mlp = idle_mlp(space, generator)
    for at, (bit, read) in enumerate(bits.items()):
        pieces = [(part, 0, sign * _STEEP) for part, sign in read.items()]
        for neuron, bias, factor in ((2 * at, -1.0, 1.0), (2 * at + 1, -2.0, -1.0)):
            mlp.reads[:, neuron] = space.columns(1, *pieces)[:, 0]
            mlp.bias[neuron] = bias
            mlp.writes[:, neuron] = space.columns(1, (bit, 0, factor))[:, 0]
    return mlp
