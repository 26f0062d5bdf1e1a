"""Heads that stand in for each other: copies, copies of which one suffices, and a backup.

All look up what follows the last token's earlier occurrence, as the induction pair does.
"""

from dataclasses import replace
from itertools import combinations
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.planted import induction as recipe
from workbench.models.planted.truth import Head, How, Known, Truth, exactly
from workbench.models.planted.wiring import (
    Blueprint,
    Neurons,
    Space,
    Wires,
    filled,
    idle_mlp,
    places,
)

_EACH = 4.0  # nats that each of three copies adds
_ANY = 8.0  # nats that all heads together give where any of them suffices
_ABLATIONS: tuple[How, ...] = ("zero", "mean", "noising")


def duplicate(
    name: str, generator: torch.Generator, *, sharing: int = 1
) -> tuple[Blueprint, Truth]:
    """Three heads that do the same, and two that share only half of what they do.

    The copy has the same weights, bit for bit (and shares keys and values under grouped
    queries); the rotated copy has its q, k and z in another basis. Their outputs add up.
    """
    plan = recipe.space()
    order = places(2, 6 if sharing == 1 else 8, generator, sharing=sharing)
    before, first = order[0][0], order[1]
    original, copy, rotated = first[0], first[1], first[2]
    pattern, output = (first[3], first[4]) if sharing == 1 else (first[4], first[6])
    wires, turn = recipe.induction(plan), _rotation()
    wired = {
        before: recipe.previous_token(plan),
        original: wires,
        copy: wires,
        rotated: Wires(wires.q @ turn, wires.k @ turn, wires.v @ turn, wires.o @ turn),
        pattern: _same_pattern(plan, wires, generator),
        output: _same_output(plan, wires),
    }
    layers, idle = filled(plan, wired, order, generator=generator, sharing=sharing)
    alike = [original, copy, rotated]
    parts = recipe.edges(before, alike, sharing=sharing)
    truth = Truth(
        name,
        "three induction heads that do the same and add up, one of them in another basis"
        + recipe.shared(sharing),
        "induction",
        {
            "previous token": (before,), "induction": tuple(alike),
            "same pattern": (pattern,), "same output": (output,), **idle,
        },
        (
            exactly((), "noising", 3 * _EACH),
            exactly((), "denoising", 0.0),
            *_added_up(alike),
            *(exactly((before,), how, 0.0) for how in _ABLATIONS),
        ),
        circuit=parts | recipe.constants(before, alike, sharing=sharing),
        noising=parts,
        denoising=frozenset(f"{recipe.named(head)}->logits" for head in alike),
        residual={**recipe.nowhere(2), (1, "PREVIOUS"): 3 * _EACH},
    )  # fmt: skip
    return recipe.blueprint(
        plan, layers, reads={"out": _EACH}, generator=generator, sharing=sharing
    ), truth


def redundant(name: str, generator: torch.Generator) -> tuple[Blueprint, Truth]:
    """Four induction heads of which any one suffices: an MLP cuts what they add off at one."""
    plan = recipe.space(found=recipe.MANY)
    order = places(2, 6, generator)
    before, alike = order[0][0], order[1][:4]
    wires = recipe.induction(plan, to="found")
    wired = {before: recipe.previous_token(plan), **dict.fromkeys(alike, wires)}
    layers, idle = filled(plan, wired, order, generator=generator)
    mlps = (idle_mlp(plan, generator, neurons=2 * recipe.MANY), _cut_off(plan))
    blueprint = replace(
        recipe.blueprint(plan, layers, reads={"out": _ANY}, generator=generator), mlps=mlps
    )
    parts = recipe.edges(before, alike, reader="m1") | {"m1->logits"}
    ends = {f"{recipe.named(head)}->m1" for head in alike} | {"m1->logits"}
    truth = Truth(
        name,
        "four induction heads of which any one suffices, joined by an MLP",
        "induction",
        {"previous token": (before,), "induction": tuple(alike), **idle},
        (
            exactly((), "noising", _ANY),
            exactly((), "denoising", 0.0),
            *(
                exactly(some, how, 0.0 if size == 4 else _ANY)
                for how in _ABLATIONS
                for size in (1, 2, 3, 4)
                for some in combinations(alike, size)
            ),
            *(exactly((head,), "denoising", _ANY) for head in alike),
            *(exactly((before,), how, 0.0) for how in _ABLATIONS),
        ),
        circuit=parts | recipe.constants(before, alike),
        noising=frozenset({f"input->{recipe.named(before)}<v>", "m1->logits"}),
        denoising=frozenset(ends),
        residual={**recipe.nowhere(2), (1, "PREVIOUS"): _ANY},
    )
    return blueprint, truth


def backup(name: str, generator: torch.Generator) -> tuple[Blueprint, Truth]:
    """An induction head, and one in the next layer that does the same only when it is gone.

    The backup's query reads what the first has said at this position, and looks away if
    anything is there.
    """
    plan = recipe.space()
    order = places(3, 4, generator)
    before, first, second = order[0][0], order[1][0], order[2][0]
    wires = recipe.induction(plan)
    wired = {
        before: recipe.previous_token(plan),
        first: wires,
        second: recipe.unless(plan, wires, "out"),
    }
    layers, idle = filled(plan, wired, order, generator=generator)
    here, there = recipe.named(first), recipe.named(second)
    truth = Truth(
        name,
        "an induction head, and a backup in the next layer that acts only when it is gone",
        "induction",
        {"previous token": (before,), "first": (first,), "backup": (second,), **idle},
        (
            exactly((), "noising", _ANY),
            exactly((), "denoising", 0.0),
            *(
                exactly(some, how, value)
                for how in _ABLATIONS
                for some, value in (
                    ((before,), 0.0),
                    ((first,), _ANY),
                    ((second,), _ANY),
                    ((first, second), 0.0),
                )
            ),
            exactly((first,), "denoising", _ANY),
            exactly((second,), "denoising", 0.0),
        ),
        circuit=recipe.edges(before, [first, second])
        | recipe.constants(before, [first, second])
        | {f"{here}->{there}<q>"},
        noising=frozenset(
            {
                f"input->{recipe.named(before)}<v>", f"input->{here}<v>", f"{here}->logits",
                f"{here}->{there}<q>",  # the backup acts beside the first: 16 nats
            }
        ),
        denoising=frozenset({f"{here}->logits"}),
        residual={
            **recipe.nowhere(3), (1, "PREVIOUS"): _ANY, (2, "PREVIOUS"): _ANY, (2, "END"): _ANY,
        },
    )  # fmt: skip
    return recipe.blueprint(plan, layers, reads={"out": _ANY}, generator=generator), truth


def self_repair(name: str, generator: torch.Generator) -> tuple[Blueprint, Truth]:
    """A backup that replaces half of what is gone, under a final norm that makes up for more.

    The first head writes 2, a helper beside it 1, the backup 1 when the first is gone; the
    final RMS norm divides by the length of all that stands in the stream.
    """
    plan = recipe.space(helped=recipe.MANY)
    order = places(3, 4, generator)
    before, first, helper, second = order[0][0], order[1][0], order[1][1], order[2][0]
    wires = recipe.induction(plan)
    wired = {
        before: recipe.previous_token(plan),
        first: recipe.induction(plan, gain=2.0),
        helper: recipe.induction(plan, to="helped"),
        second: recipe.unless(plan, wires, "out"),
    }
    # So quiet that the norm does not notice.
    layers, idle = filled(plan, wired, order, generator=generator, loudness=1e-4)
    drawn = recipe.blueprint(plan, layers, reads={"out": 0.5, "helped": 0.5}, generator=generator)
    blueprint = replace(drawn, final_norm="rms")
    looks = f"{recipe.named(first)}->{recipe.named(second)}<q>"
    left = {
        (): (2.0, 1.0), (first,): (1.0, 1.0), (second,): (2.0, 1.0), (helper,): (2.0, 0.0),
        (first, second): (0.0, 1.0), (first, helper, second): (0.0, 0.0),
    }  # fmt: skip
    truth = Truth(
        name,
        "a backup that replaces half of what is gone, and a final norm that makes up for more",
        "induction",
        {
            "previous token": (before,), "first": (first,), "helper": (helper,),
            "backup": (second,), **idle,
        },
        tuple(
            exactly(some, how, normed(*found, width=plan.width))
            for how in _ABLATIONS
            for some, found in left.items()
            if some or how == "noising"
        ),
        circuit=recipe.edges(before, [first, helper, second])
        | recipe.constants(before, [first, helper, second])
        # The norm hears all that stands in the stream at the last position.
        | {looks, "input->logits", f"{recipe.named(before)}->logits"},
        noising=recipe.edges(before, [first, helper]) | {looks},
        denoising=frozenset(f"{recipe.named(head)}->logits" for head in (first, helper)),
        residual={
            **recipe.nowhere(3),
            **dict.fromkeys([(1, "PREVIOUS"), (2, "END")], normed(2.0, 1.0, width=plan.width)),
            (2, "PREVIOUS"): normed(1.0, 0.0, width=plan.width),
        },
    )  # fmt: skip
    return blueprint, truth


def normed(out: float, helped: float, *, width: int) -> float:
    """The logit difference when so much stands in the two parts that the logits read.

    Beside them the last position holds four ones: its token, its position, the mark that every
    token has, and the note.
    """
    return 0.5 * (out + helped) / sqrt((4 + out**2 + helped**2) / width + 1e-5)


def _rotation() -> Float[Tensor, "d_head d_head"]:
    """An orthogonal matrix of halves, so that rotating rounds nothing."""
    block = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    return torch.block_diag(*[block] * (recipe.WIDTH // 4))


def _same_pattern(plan: Space, wires: Wires, generator: torch.Generator) -> Wires:
    """Attends as the others do; what it reads there and says is random and read by no task."""
    v = 0.3 * torch.randn(wires.v.shape, generator=generator)
    o = torch.zeros_like(wires.o)
    scratch = plan.part("scratch")
    o[scratch] = 0.05 * torch.randn(o[scratch].shape, generator=generator)
    return Wires(wires.q, wires.k, v, o)


def _same_output(plan: Space, wires: Wires) -> Wires:
    """Says what it attends to as the others do, but attends to the last token itself."""
    here = recipe.previous_token(plan)
    return Wires(here.k * here.q.max(), here.k, wires.v, wires.o, back=0)


def _cut_off(plan: Space) -> Neurons:
    """relu(x) - relu(x - 1) of everything found."""
    many = recipe.MANY
    return Neurons(
        plan.columns(2 * many, ("found", 0, 1.0), ("found", many, 1.0)),
        torch.cat([torch.zeros(many), -torch.ones(many)]),
        plan.columns(2 * many, ("out", 0, 1.0), ("out", many, -1.0)),
    )


def _added_up(heads: list[Head]) -> list[Known]:
    """Every set of the copies costs (or, brought back, gives) what its members do."""
    sets = [some for size in (1, 2, 3) for some in combinations(heads, size)]
    lost = [exactly(s, how, (3 - len(s)) * _EACH) for how in _ABLATIONS for s in sets]
    return lost + [exactly(s, "denoising", len(s) * _EACH) for s in sets]
