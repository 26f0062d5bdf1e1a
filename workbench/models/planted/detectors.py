"""Neurons whose job is known: a detector of one word, its double, a dead one, and one that costs.

The AND of two heads (`gates`), with neurons beside it that no answer depends on:

    detector    1 at the word `DETECTED`, 0 at every other; promotes the word `PROMOTED`
    duplicate   the same again
    dead        0 at every word
    costly      the neuron that makes the AND: without it every prompt is judged as if corrupt
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.planted.gates import STRENGTH, gate
from workbench.models.planted.truth import Truth
from workbench.models.planted.wiring import Blueprint, Neurons, Space, idle_mlp

DETECTED, PROMOTED = "later", "here"
"""Two of the words that fill the gate task's prompts."""

COST = 2 * STRENGTH
"""Nats of logit difference that the costly neuron's loss takes from a clean prompt."""

PROMOTES = 1.5
"""Nats that each detector adds to the logit of the promoted word where it fires."""

_ROOM, _MORE = 24, 4  # new coordinates, of which two are used; new neurons in each layer


def detectors(name: str, generator: torch.Generator) -> tuple[Blueprint, Truth]:
    """The AND gate with a detector, its duplicate and a dead neuron in the first layer."""
    plan, truth = gate(name, generator, kind="and")
    plan = _widened(plan)
    words, space = plan.words, plan.space
    embed, unembed = plan.embed.clone(), plan.unembed.clone()
    embed[words.index(DETECTED), space.part("marked")] = 1
    unembed[space.part("found"), words.index(PROMOTED)] = PROMOTES
    first, last = (_with_more(space, mlp, generator) for mlp in plan.mlps)
    at = first.bias.shape[0] - _MORE
    for neuron in (at, at + 1):
        first.reads[:, neuron] = space.columns(1, ("marked", 0, 1.0))[:, 0]
        first.bias[neuron] = 0.0
        first.writes[:, neuron] = space.columns(1, ("found", 0, 1.0))[:, 0]
    first.reads[:, at + 2], first.bias[at + 2] = 0.0, -1.0
    orders = [torch.randperm(mlp.bias.shape[0], generator=generator) for mlp in (first, last)]
    mlps = tuple(
        Neurons(mlp.reads[:, order], mlp.bias[order], mlp.writes[:, order])
        for mlp, order in zip((first, last), orders, strict=True)
    )
    place = [{int(old): new for new, old in enumerate(order)} for order in orders]
    roles = {
        "detector": ((0, place[0][at]),),
        "duplicate": ((0, place[0][at + 1]),),
        "dead": ((0, place[0][at + 2]),),
        "costly": ((1, place[1][1]),),  # of the gate's two, the one with the threshold
    }
    what = f"{truth.what}; beside it neurons that find {DETECTED!r}"
    plan = replace(plan, embed=embed, unembed=unembed, mlps=mlps)
    return plan, replace(truth, what=what, neurons=roles)


def _widened(plan: Blueprint) -> Blueprint:
    """The same model with empty coordinates at the end of the stream."""
    space = Space({**plan.space.sizes, "marked": 1, "found": 1, "spare": _ROOM - 2})

    def rows(matrix: Float[Tensor, "d_model other"]) -> Float[Tensor, "wider other"]:
        return torch.cat([matrix, torch.zeros(_ROOM, matrix.shape[1])])

    layers = tuple(
        tuple(
            replace(one, q=rows(one.q), k=rows(one.k), v=rows(one.v), o=rows(one.o))
            for one in layer
        )
        for layer in plan.layers
    )
    mlps = tuple(Neurons(rows(one.reads), one.bias, rows(one.writes)) for one in plan.mlps)
    return replace(
        plan, space=space, embed=rows(plan.embed.T).T, position=rows(plan.position.T).T,
        layers=layers, mlps=mlps, unembed=rows(plan.unembed),
    )  # fmt: skip


def _with_more(space: Space, mlp: Neurons, generator: torch.Generator) -> Neurons:
    """More neurons that write into the scratch alone."""
    more = idle_mlp(space, generator, neurons=_MORE)
    reads, writes = (
        torch.cat(pair, dim=1) for pair in ((mlp.reads, more.reads), (mlp.writes, more.writes))
    )
    return Neurons(reads, torch.cat([mlp.bias, more.bias]), writes)
