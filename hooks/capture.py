"""Reading activations out of a forward pass: only what is asked for, and no further than needed."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.activations import Activations
from hooks.places import NotFinite, Positions, rows_of_positions
from hooks.prompts import Prompts
from hooks.sites import HookedModel, Site, check_readable

Logits = Literal["none", "last", "all"]


class _EverythingRead(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward pass whose remaining layers nobody asked for."""


@torch.no_grad()
def capture(
    model: HookedModel,
    prompts: Prompts | Tensor,
    sites: Iterable[Site],
    *,
    positions: Positions | None = None,
    logits: Logits = "none",
    not_finite: NotFinite = "refuse",
) -> Activations:
    """Run `model` once on `prompts` and keep copies of what flows through `sites`.

    Nothing above the last needed site is computed. What is kept for a prompt equals what that
    prompt gives when it is run alone.

    positions   none: all; an int: that position of every prompt; a tensor with one index for
                each prompt, such as `task.positions["IO"]`, or with several (batch, chosen);
                a list of ints: those of every prompt. The pos axis then has one entry for
                each chosen position.
    logits      "none"; "last": those at each prompt's last real token, (batch, 1, vocab), at
                the price of one row; "all": (batch, pos, vocab).
    not_finite  "refuse" NaN and Inf with an error that names the site, or "keep" them.
    """
    prompts = Prompts.of(prompts).to(_device(model))
    wanted = list(dict.fromkeys(sites))
    for site in wanted:
        check_readable(model, site)
    if not wanted and logits == "none":
        raise ValueError('nothing to capture: name at least one site, or logits="last" or "all"')
    rows = None if positions is None else _rows_within(positions, prompts)
    kept: dict[Site, Tensor] = {}
    ends_at = len(wanted) if logits == "none" else None
    hooks = [(site.hook_name, _keep(site, kept, rows=rows, ends_at=ends_at)) for site in wanted]
    found = None
    with model.hooks(fwd_hooks=hooks), suppress(_EverythingRead):
        found = _run(model, prompts, logits)
    silent = [str(site) for site in wanted if site not in kept]
    if silent:
        raise RuntimeError(f"nothing flowed through {', '.join(silent)} in {_name(model)}")
    if not_finite == "refuse":
        for site, activation in kept.items():
            _check_finite(activation, prompts, rows, site)
        if found is not None:
            _check_finite(found, prompts, prompts.last[:, None] if logits == "last" else None)
    there = getattr(model, "kept_heads", None)
    return Activations(prompts, {site: kept[site] for site in wanted}, rows, found, there)


def _keep(
    site: Site, kept: dict[Site, Tensor], *, rows: Tensor | None, ends_at: int | None
) -> Callable[[Tensor, object], None]:
    """A hook that keeps a copy; it ends the pass when `ends_at` sites have been read."""

    # The site is bound here: TransformerLens reports an alias's target as `hook.name`.
    def read(activation: Tensor, hook: object) -> None:
        if site in kept:
            raise RuntimeError(f"{site} fired twice in one pass; run check_model on this model")
        kept[site] = _chosen(activation, rows, site)
        if len(kept) == ends_at:
            raise _EverythingRead

    return read


def capture_batches(
    model: HookedModel,
    batches: Iterable[Prompts | Tensor],
    sites: Iterable[Site],
    *,
    positions: Positions | None = None,
    logits: Logits = "none",
    not_finite: NotFinite = "refuse",
) -> Iterator[Activations]:
    """`capture` over a corpus, one batch at a time, so that memory is the caller's choice."""
    sites = list(sites)
    for batch in batches:
        yield capture(
            model, batch, sites, positions=positions, logits=logits, not_finite=not_finite
        )


@torch.no_grad()
def visit(
    model: HookedModel,
    prompts: Prompts | Tensor,
    sites: Iterable[Site],
    show: Callable[[Site, Tensor], None],
) -> None:
    """Run `model` once on `prompts` and show what flows through `sites` as it is computed.

    Nothing is kept and nothing above the last needed site is computed, so memory does not grow
    with the number of sites. What is shown is the model's own tensor: copy what is to be kept,
    and write into nothing. What stands behind a prompt's length is padding.
    """
    prompts = Prompts.of(prompts).to(_device(model))
    wanted, seen = list(dict.fromkeys(sites)), set()
    for site in wanted:
        check_readable(model, site)
    if not wanted:
        raise ValueError("nothing to visit: name at least one site")

    def reader(site: Site) -> Callable[[Tensor, object], None]:
        def read(activation: Tensor, hook: object) -> None:
            if site in seen:
                raise RuntimeError(f"{site} fired twice in one pass; run check_model")
            seen.add(site)
            show(site, activation)
            if len(seen) == len(wanted):
                raise _EverythingRead

        return read

    hooks = [(site.hook_name, reader(site)) for site in wanted]
    with model.hooks(fwd_hooks=hooks), suppress(_EverythingRead):
        model(prompts)
    silent = [str(site) for site in wanted if site not in seen]
    if silent:
        raise RuntimeError(f"nothing flowed through {', '.join(silent)} in {_name(model)}")


def last_logits(model: HookedModel, prompts: Prompts | Tensor) -> Float[Tensor, "batch 1 vocab"]:
    """The logits at each prompt's last real token; the other rows are not computed where the
    model can leave them out. Unlike `capture` it follows the caller's choice of gradients."""
    prompts = Prompts.of(prompts).to(_device(model))
    last = prompts.last
    if "logits_to_keep" in inspect.signature(model.original_model.forward).parameters:
        rows = last.unique()
        logits = model(prompts, logits_to_keep=rows)
        return _take(logits, torch.searchsorted(rows, last)[:, None], 1)
    return _take(model(prompts), last[:, None], 1)


def _run(model: HookedModel, prompts: Prompts, logits: Logits) -> Tensor | None:
    if logits == "last":
        return last_logits(model, prompts)
    found = model(prompts)
    return found if logits == "all" else None


def _rows_within(positions: Positions, prompts: Prompts) -> Int[Tensor, "batch chosen"]:
    rows = rows_of_positions(positions, len(prompts)).to(prompts.tokens.device)
    outside = (rows >= prompts.lengths[:, None]).any(dim=1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"prompt {row} has {int(prompts.lengths[row])} tokens, asked for position "
            f"{int(rows[row].max())}; positions count from 0"
        )
    return rows


def _chosen(activation: Tensor, rows: Tensor | None, site: Site) -> Tensor:
    """A copy of the activation, or of its chosen positions."""
    if rows is None:
        return activation.detach().clone()
    return _take(activation.detach(), rows, _pos_axis(site))


def _take(activation: Tensor, rows: Int[Tensor, "batch chosen"], axis: int) -> Tensor:
    shape = [1] * activation.ndim
    shape[0], shape[axis] = rows.shape
    target = list(activation.shape)
    target[axis] = rows.shape[1]
    return activation.gather(axis, rows.reshape(shape).expand(target))


def _check_finite(
    activation: Tensor, prompts: Prompts, rows: Tensor | None, site: Site | None = None
) -> None:
    """Raise where a real token has NaN or Inf; without a site these are logits."""
    if site is not None and site.stream == "scores":  # masked scores are infinite by design
        activation = activation.nan_to_num(nan=torch.nan, posinf=torch.inf, neginf=0.0)
    if bool(torch.isfinite(activation.sum())):  # one pass instead of two
        return
    bad = ~torch.isfinite(activation)
    where = bad.movedim(1 if site is None else _pos_axis(site), 1).flatten(2).any(dim=2)
    if rows is None:
        where = where & prompts.mask.bool()
    if bool(where.any()):
        prompt, position = where.nonzero()[0].tolist()
        at = position if rows is None else int(rows[prompt, position])
        raise FloatingPointError(
            f"NaN or Inf at {site or 'the logits'}, prompt {prompt}, position {at}; "
            'capture(..., not_finite="keep") keeps it'
        )


def _pos_axis(site: Site) -> int:
    return site.axes.index("query" if "query" in site.axes else "pos")


def _device(model: HookedModel) -> torch.device:
    return next(model.original_model.parameters()).device


def _name(model: Any) -> str:
    return str(getattr(model.cfg, "architecture", type(model).__name__))
