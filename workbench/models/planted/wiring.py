"""Models put together by hand: matrices that say which named directions they read and write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.planted.truth import Head

HARD = 256.0
"""A lead in attention scores that leaves nothing to the others: exp(-HARD / 2) is 0 in float32."""

_SCRATCH, _WIDTHS = 16, 24  # the least there is of it; what all widths are multiples of
_UNSAID = 30.0  # nats that the logit of <pad> lies below the others

Piece = tuple[str, int, float]
"""A named part of the stream, the column that its first coordinate goes to, and a factor."""


@dataclass(frozen=True)
class Space:
    """A residual stream whose coordinates have names: part -> how many coordinates it has."""

    sizes: Mapping[str, int]

    @classmethod
    def of(cls, **sizes: int) -> "Space":
        """These parts, and a scratch that makes the width one that any number of heads divides."""
        named = sum(sizes.values())
        return cls({**sizes, "scratch": _SCRATCH + -(named + _SCRATCH) % _WIDTHS})

    @property
    def width(self) -> int:
        """How many coordinates there are in all."""
        return sum(self.sizes.values())

    def part(self, name: str) -> slice:
        """The coordinates of the part `name`."""
        ends = dict(zip(self.sizes, accumulate(self.sizes.values()), strict=True))
        return slice(ends[name] - self.sizes[name], ends[name])

    def columns(self, width: int, *pieces: Piece) -> Float[Tensor, "d_model width"]:
        """Each part times its factor at columns of its own; what falls outside is dropped."""
        found = torch.zeros(self.width, width)
        for name, at, factor in pieces:
            where = self.part(name)
            for step in range(self.sizes[name]):
                if 0 <= at + step < width:
                    found[where.start + step, at + step] += factor
        return found


@dataclass(frozen=True)
class Wires:
    """One attention head: from the stream to q, k and v, and from z back (`o`, the same way up).

    back   how many tokens before its own the head attends to, where q and k say nothing but that
    """

    q: Float[Tensor, "d_model d_head"]
    k: Float[Tensor, "d_model d_head"]
    v: Float[Tensor, "d_model d_head"]
    o: Float[Tensor, "d_model d_head"]
    back: int | None = None


@dataclass(frozen=True)
class Neurons:
    """One MLP: relu(stream @ reads + bias) @ writes.T."""

    reads: Float[Tensor, "d_model neuron"]
    bias: Float[Tensor, " neuron"]
    writes: Float[Tensor, "d_model neuron"]


@dataclass(frozen=True)
class Blueprint:
    """All that a hand-wired model is made of, before it takes the shape of an architecture.

    sharing      how many query heads share one key-value head
    final_norm   whether the unembedding reads the stream itself or its RMS norm
    """

    words: tuple[str, ...]
    space: Space
    embed: Float[Tensor, "vocab d_model"]
    position: Float[Tensor, "pos d_model"]
    layers: tuple[tuple[Wires, ...], ...]
    unembed: Float[Tensor, "d_model vocab"]
    mlps: tuple[Neurons, ...] = ()
    sharing: int = 1
    final_norm: Literal["none", "rms"] = "none"


def places(
    layers: int, heads: int, generator: torch.Generator, *, sharing: int = 1
) -> list[list[Head]]:
    """For each layer its heads in random order; those that share keys and values stay together."""
    found = []
    for layer in range(layers):
        groups = torch.randperm(heads // sharing, generator=generator).tolist()
        inside = [torch.randperm(sharing, generator=generator).tolist() for _ in groups]
        found.append(
            [
                (layer, group * sharing + member)
                for group, members in zip(groups, inside, strict=True)
                for member in members
            ]
        )
    return found


def filled(
    space: Space,
    wired: Mapping[Head, Wires],
    order: Sequence[Sequence[Head]],
    *,
    generator: torch.Generator,
    sharing: int = 1,
    loudness: float = 0.05,
) -> tuple[tuple[tuple[Wires, ...], ...], dict[str, tuple[Head, ...]]]:
    """The layers with irrelevant heads in all places that are left, and which those are.

    They attend and mix at random and write into "scratch", times `loudness`; the last one of
    each layer writes nothing. One that shares keys and values with a wired head takes those.
    """
    width = next(iter(wired.values())).q.shape[1]
    every = dict(wired)
    left = [[head for head in layer if head not in wired] for layer in order]
    for head in (head for layer in left for head in layer):
        mates = [(head[0], head[1] // sharing * sharing + n) for n in range(sharing)]
        mate = next((every[mate] for mate in mates if mate in every), None)
        drawn = _idle(space, width, mate, generator)
        every[head] = replace(drawn, o=loudness * drawn.o)
    silent = tuple(layer[-1] for layer in left if layer)
    for head in silent:
        every[head] = replace(every[head], o=torch.zeros_like(every[head].o))
    orthogonal = tuple(head for layer in left for head in layer if head not in silent)
    layers = tuple(tuple(every[head] for head in sorted(layer)) for layer in order)
    return layers, {"orthogonal": orthogonal, "silent": silent}


def _idle(space: Space, width: int, mate: Wires | None, generator: torch.Generator) -> Wires:
    def drawn() -> Tensor:
        return torch.randn(space.width, width, generator=generator)

    o = torch.zeros(space.width, width)
    o[space.part("scratch")] = drawn()[space.part("scratch")]
    q, k, v = 0.5 * drawn(), 0.5 * drawn(), 0.3 * drawn()
    return Wires(q, k, v, o) if mate is None else Wires(q, mate.k, mate.v, o)


def idle_mlp(space: Space, generator: torch.Generator, *, neurons: int = 8) -> Neurons:
    """Random neurons that write into the scratch alone."""
    writes = torch.zeros(space.width, neurons)
    scratch = space.part("scratch")
    writes[scratch] = 0.1 * torch.randn(scratch.stop - scratch.start, neurons, generator=generator)
    reads = torch.randn(space.width, neurons, generator=generator)
    return Neurons(reads, torch.full((neurons,), 0.5), writes)


def unembedding(
    space: Space, words: Sequence[str], generator: torch.Generator
) -> Float[Tensor, "d_model vocab"]:
    """No logit reads anything yet but that of <pad>, which reads the scratch and is never said."""
    found = torch.zeros(space.width, len(words))
    scratch = space.part("scratch")
    found[scratch, words.index("<pad>")] = 0.1 * torch.randn(
        scratch.stop - scratch.start, generator=generator
    )
    found[space.part("one"), words.index("<pad>")] = -_UNSAID
    return found
