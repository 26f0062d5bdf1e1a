"""Cells run in full: because nothing can be saved, or to check those that were replayed."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.activations import Activations
from hooks.capture import capture, last_logits
from hooks.intervene import intervening
from hooks.places import Edit, Window
from hooks.prompts import Prompts
from hooks.replay.cells import Cell, for_prompts
from hooks.replay.memory import blocks
from hooks.replay.planning import Plan
from hooks.replay.recording import CLOSE
from hooks.replay.watching import Seen
from hooks.sites import HookedModel, Site


class ReplayMismatch(RuntimeError):  # noqa: N818 - the name says what went wrong
    """A replayed cell differs from the same cell run in full."""


def in_full(plan: Plan, cell: int | None, rows: Int[Tensor, " row"]) -> Tensor:
    """The logits that are read of some prompts, by an ordinary forward pass under a cell's edits.

    An edit that is a bare function gets the prompts as they are given: give it all of them.
    """
    if cell is None:
        return _columns(plan, _logits(plan, rows), rows)
    with intervening(plan.recording.model, _for(plan, cell, rows)):
        return _columns(plan, _logits(plan, rows), rows)


def prompts(plan: Plan) -> Iterator[Int[Tensor, " row"]]:
    """All prompts, as many at a time as run in full at once."""
    device = plan.recording.resid[0].device
    return blocks(len(plan.recording.prompts), plan.prompts_at_once, device)


def expected(plan: Plan, pairs: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The logits that are read of some (cell, prompt), by ordinary forward passes.

    Each row of a pass is one prompt under the edits of its own cell.
    """
    found: list[Tensor] = []
    for start in range(0, len(pairs), plan.prompts_at_once):
        some = pairs[start : start + plan.prompts_at_once]
        rows = _rows(plan, some)
        with intervening(plan.recording.model, _edits(plan, some, rows)):
            found += _columns(plan, _logits(plan, rows), rows).split(1)
    return found


def seen(plan: Plan, pairs: Sequence[tuple[int, int]], sites: Sequence[Site]) -> Activations:
    """What flows through some sites in some (cell, prompt), by one ordinary forward pass."""
    rows = _rows(plan, pairs)
    with intervening(plan.recording.model, _edits(plan, pairs, rows)):
        # With logits the pass goes on to its end, so that edits above the sites take place too.
        return capture(plan.recording.model, _prompts(plan, rows), sites, logits="last")


def seen_in_full(
    plan: Plan, cell: int, rows: Int[Tensor, " row"], sites: Sequence[Site]
) -> Activations:
    """What flows through some sites in some prompts under a cell's edits."""
    with intervening(plan.recording.model, _for(plan, cell, rows)):
        return capture(plan.recording.model, _prompts(plan, rows), sites, logits="last")


def _for(plan: Plan, cell: int, rows: Int[Tensor, " row"]) -> Cell:
    everyone = len(rows) == len(plan.recording.prompts)
    return plan.cells[cell] if everyone else for_prompts(plan.cells[cell], rows)


def compare(
    plan: Plan, pair: tuple[int, int], found: Float[Tensor, "row pos column"], expected: Tensor
) -> float:
    """The difference as a share of the largest logit; an error when it is more than rounding."""
    prompt = pair[1]
    if plan.reads.rows == "all":
        real = int(plan.recording.prompts.lengths[prompt])
        expected, found = expected[:, :real], found[:, :real]
    scale = torch.maximum(plan.recording.scale[prompt], expected.abs().max())
    difference = float((found - expected).abs().max() / scale)
    return _checked(plan, pair, difference, found.dtype, of="logit")


def compare_seen(plan: Plan, pair: tuple[int, int], found: Seen, expected: Tensor) -> float:
    """The same for one row of what flows through a site."""
    axis = found.site.axes.index("query" if "query" in found.site.axes else "pos")
    real = int(plan.recording.prompts.lengths[pair[1]]) - found.start
    here = found.activation.narrow(axis, 0, real)
    expected = expected.narrow(axis, found.start, real)
    if found.site.stream == "scores":  # masked ones are as negative as can be
        here, expected = here.clamp(min=-1e4), expected.clamp(min=-1e4)
    scale = expected.abs().max().clamp(min=1e-30)
    difference = float((here - expected).abs().max() / scale)
    return _checked(plan, pair, difference, here.dtype, of=str(found.site))


def _checked(
    plan: Plan, pair: tuple[int, int], difference: float, dtype: torch.dtype, *, of: str
) -> float:
    (cell, prompt), allowed = pair, CLOSE[dtype]
    if not difference <= allowed:
        edits = ", ".join(f"{site}" for site in plan.cells[cell])
        raise ReplayMismatch(
            f"cell {cell} ({edits}), prompt {prompt}: replay and a full forward pass differ by "
            f"{difference:.1e} of the largest {of}, allowed is {allowed:.0e}. The "
            "results would be wrong; run it with effects.measure, and report the architecture "
            f"{type(plan.recording.model.original_model).__name__}"
        )
    return difference


def _rows(plan: Plan, pairs: Sequence[tuple[int, int]]) -> Int[Tensor, " row"]:
    return torch.tensor([prompt for _, prompt in pairs], device=plan.recording.resid[0].device)


def _edits(
    plan: Plan, pairs: Sequence[tuple[int, int]], rows: Int[Tensor, " row"]
) -> dict[Site, Callable[[Tensor], Tensor]]:
    """The edits of each pair's cell, made on its own row of a pass."""
    members: dict[Site, list[tuple[int, Sequence[Edit]]]] = {}
    for index, (cell, _) in enumerate(pairs):
        for step in plan.works[cell].steps:
            members.setdefault(step.site, []).append((index, step.edits))
    model = plan.recording.model
    return {site: _each_its_own(model, site, listed, rows) for site, listed in members.items()}


def _each_its_own(
    model: HookedModel,
    site: Site,
    members: list[tuple[int, Sequence[Edit]]],
    rows: Int[Tensor, " row"],
) -> Callable[[Tensor], Tensor]:
    """An edit that makes on each row of the pass the edits of that row's cell."""

    def change(activation: Tensor) -> Tensor:
        changed = activation.clone()
        for index, edits in members:
            one = slice(index, index + 1)
            window = Window.at(model, site, rows=rows[one])
            for edit in edits:
                changed[one] = edit(changed[one], window)
        return changed

    return change


def _logits(plan: Plan, rows: Int[Tensor, " row"]) -> Tensor:
    model, chosen = plan.recording.model, _prompts(plan, rows)
    return last_logits(model, chosen) if plan.reads.rows == "last" else model(chosen)


def _prompts(plan: Plan, rows: Int[Tensor, " row"]) -> Prompts:
    prompts = plan.recording.prompts
    return Prompts(prompts.tokens[rows], prompts.lengths[rows])


def _columns(plan: Plan, logits: Tensor, rows: Int[Tensor, " row"]) -> Tensor:
    if plan.reads.columns is None:
        return logits
    ids = plan.reads.columns.to(logits.device)[rows].clamp(min=0)
    return logits.gather(2, ids[:, None].expand(-1, logits.shape[1], -1))
