"""Cells run in full: because nothing can be saved, or to check those that were replayed."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.capture import last_logits
from hooks.intervene import intervening
from hooks.places import Edit, Window
from hooks.prompts import Prompts
from hooks.replay.planning import Plan
from hooks.replay.recording import CLOSE
from hooks.sites import Site


class ReplayMismatch(RuntimeError):  # noqa: N818 - the name says what went wrong
    """A replayed cell differs from the same cell run in full."""


def in_full(plan: Plan, cell: int | None) -> Tensor:
    """The logits that are read of all prompts, by an ordinary forward pass under a cell's edits."""
    everyone = torch.arange(len(plan.recording.prompts), device=plan.recording.resid[0].device)
    if cell is None:
        return _columns(plan, _logits(plan, everyone), everyone)
    with intervening(plan.recording.model, plan.cells[cell]):
        found = _logits(plan, everyone)
    return _columns(plan, found, everyone)


def expected(plan: Plan, pairs: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The logits that are read of some (cell, prompt), by one ordinary forward pass.

    Each row of the pass is one prompt under the edits of its own cell.
    """
    rows = torch.tensor([prompt for _, prompt in pairs], device=plan.recording.resid[0].device)
    members: dict[Site, list[tuple[int, Sequence[Edit]]]] = {}
    for index, (cell, _) in enumerate(pairs):
        for step in plan.works[cell].steps:
            members.setdefault(step.site, []).append((index, step.edits))
    edits = {site: _each_its_own(site, listed, rows) for site, listed in members.items()}
    with intervening(plan.recording.model, edits):
        found = _logits(plan, rows)
    return list(_columns(plan, found, rows).split(1))


def compare(
    plan: Plan, pair: tuple[int, int], found: Float[Tensor, "row pos column"], expected: Tensor
) -> float:
    """The difference as a share of the largest logit; an error when it is more than rounding."""
    cell, prompt = pair
    if plan.reads.rows == "all":
        real = int(plan.recording.prompts.lengths[prompt])
        expected, found = expected[:, :real], found[:, :real]
    scale = torch.maximum(plan.recording.scale[prompt], expected.abs().max())
    difference = float((found - expected).abs().max() / scale)
    if not difference <= CLOSE[found.dtype]:
        edits = ", ".join(f"{site}" for site in plan.cells[cell])
        raise ReplayMismatch(
            f"cell {cell} ({edits}), prompt {prompt}: replay and a full forward pass differ by "
            f"{difference:.1e} of the largest logit, allowed is {CLOSE[found.dtype]:.0e}. The "
            "results would be wrong; run it with effects.measure, and report the architecture "
            f"{type(plan.recording.model.original_model).__name__}"
        )
    return difference


def _each_its_own(
    site: Site, members: list[tuple[int, Sequence[Edit]]], rows: Int[Tensor, " row"]
) -> Callable[[Tensor], Tensor]:
    """An edit that makes on each row of the pass the edits of that row's cell."""

    def change(activation: Tensor) -> Tensor:
        changed = activation.clone()
        for index, edits in members:
            one = slice(index, index + 1)
            window = Window(site.axes, rows=rows[one])
            for edit in edits:
                changed[one] = edit(changed[one], window)
        return changed

    return change


def _logits(plan: Plan, rows: Int[Tensor, " row"]) -> Tensor:
    model, prompts = plan.recording.model, plan.recording.prompts
    chosen = Prompts(prompts.tokens[rows], prompts.lengths[rows])
    return last_logits(model, chosen) if plan.reads.rows == "last" else model(chosen)


def _columns(plan: Plan, logits: Tensor, rows: Int[Tensor, " row"]) -> Tensor:
    if plan.reads.columns is None:
        return logits
    ids = plan.reads.columns.to(logits.device)[rows].clamp(min=0)
    return logits.gather(2, ids[:, None].expand(-1, logits.shape[1], -1))
