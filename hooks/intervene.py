"""Editing activations during a forward pass: all that writes into a running model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hooks import heads
from hooks.places import Edit, NotFinite, Window, rows_of_positions
from hooks.sites import HookedModel, Site, check_writable

AnyEdit = Edit | Callable[[Tensor], Tensor]
"""One of `hooks.edits`, or your own pure function from an activation to its replacement."""


class EditNeverFired(RuntimeError):  # noqa: N818 - the name says what went wrong
    """An edit that was asked for did not take place, so the results are those of no edit."""


_between: WeakKeyDictionary[HookedModel, list[int]] = WeakKeyDictionary()
"""The layers whose resid_mid an open block writes."""


@dataclass
class _Passes:
    """How the block was opened, and what has happened since."""

    model: HookedModel
    not_finite: NotFinite = "refuse"
    start: int = 0
    count: int = 0
    mask: Tensor | None = None  # 1 where a token of this pass (and its cache) is real
    fired: dict[tuple[Site, int], int] = field(default_factory=dict)


@contextmanager
def intervening(
    model: HookedModel,
    edits: Mapping[Site, AnyEdit | Sequence[AnyEdit]],
    *,
    not_finite: NotFinite = "refuse",
) -> Iterator[None]:
    """While open, every forward pass of `model` sees each site after its edits, in order.

    Works around `model.generate` too: positions are absolute, and an edit whose positions are
    not in a step is idle there. When the block closes without an exception, `EditNeverFired`
    is raised for an edit that took place in no forward pass, and for a block that ran none.
    An edit must return the shape, dtype and device it was given, and finite numbers (or any,
    with not_finite="keep").
    Blocks may be nested, the outer one's edits come first.
    """
    listed = {site: _as_list(edit) for site, edit in edits.items()}
    for site, several in listed.items():
        check_writable(model, site)
        if not several:
            raise ValueError(f"no edit was given for {site}")
        check_heads(model, site, several)
        _check_nesting(site, _between.get(model, []))
    passes = _Passes(model, not_finite)
    passes.fired = {(site, i): 0 for site, several in listed.items() for i in range(len(several))}
    # resid_mid is written through resid_pre and attn_out, so it comes after their own edits.
    in_order = sorted(listed, key=lambda site: site.stream == "resid_mid")
    hooks = [hook for site in in_order for hook in _hooks(site, listed[site], passes)]
    watch = model.original_model.register_forward_pre_hook(_watcher(passes), with_kwargs=True)
    around = _between.get(model, [])
    _between[model] = around + [site.layer for site in listed if site.stream == "resid_mid"]
    try:
        with model.hooks(fwd_hooks=hooks):
            yield
    finally:
        watch.remove()
        _between[model] = around
    _check_fired(listed, passes)


def check_heads(model: HookedModel, site: Site, edits: Sequence[AnyEdit]) -> None:
    """Raise for an edit of a head that was removed from the model."""
    for edit in edits:
        if isinstance(edit, Edit) and edit.heads and "head" in site.axes:
            heads.check(model, site, edit.heads)


def _as_list(edit: AnyEdit | Sequence[AnyEdit]) -> list[AnyEdit]:
    return list(edit) if isinstance(edit, Sequence) else [edit]


def _check_nesting(site: Site, between: list[int]) -> None:
    """What an outer block writes at resid_mid is worked out from its parts before they change."""
    if site.stream in ("resid_pre", "attn_out") and site.layer in between:
        raise ValueError(
            f"{site} would change resid_mid {site.layer}, which an outer block has written "
            "already: give both to one intervening(...), or make this block the outer one"
        )


def _watcher(passes: _Passes) -> Callable[..., None]:
    """Notes at the start of each pass how many positions a cache already holds."""

    def watch(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache: Any = kwargs.get("past_key_values")
        passes.start = int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
        mask = kwargs.get("attention_mask")
        passes.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        passes.count += 1

    return watch


def _hooks(site: Site, edits: list[AnyEdit], passes: _Passes) -> list[tuple[str, Any]]:
    if site.stream == "resid_mid":
        return _hooks_between(site, edits, passes)
    # The site is bound here: TransformerLens reports an alias's target as `hook.name`.
    return [(site.hook_name, lambda activation, hook: _apply(activation, site, edits, passes))]


def _hooks_between(site: Site, edits: list[AnyEdit], passes: _Passes) -> list[tuple[str, Any]]:
    """Edits of resid_mid, written as attn_out := target - resid_pre.

    TransformerLens's own hook point is the MLP's input: what is written there misses the
    skip connection. Where the target is what is there already, attn_out is kept bit for bit.
    """
    before: list[Tensor] = []

    def note(resid_pre: Tensor, hook: object) -> None:
        before[:] = [resid_pre]

    def write(attn_out: Tensor, hook: object) -> Tensor:
        resid_pre = before.pop()
        middle = resid_pre + attn_out
        target = _apply(middle, site, edits, passes)
        return written_between(resid_pre, attn_out, target)

    return [
        (Site("resid_pre", site.layer).hook_name, note),
        (Site("attn_out", site.layer).hook_name, write),
    ]


def written_between(resid_pre: Tensor, attn_out: Tensor, target: Tensor) -> Tensor:
    """The attn_out that makes resid_mid `target`."""
    middle = resid_pre + attn_out
    # Where nothing changed, attn_out plus zero: the same bits, and the target's gradient.
    return torch.where(target == middle, attn_out + (target - middle), target - resid_pre)


def _apply(activation: Tensor, site: Site, edits: list[AnyEdit], passes: _Passes) -> Tensor:
    window = Window.at(passes.model, site, start=passes.start)
    for index, edit in enumerate(edits):
        if isinstance(edit, Edit):
            if not edit.reaches(activation, window):
                continue
            check_real(edit, site, passes.mask, batch=activation.shape[0])
            changed = edit(activation, window)
        else:
            changed = edit(activation.clone())  # a user's function may write into its argument
        activation = _checked(changed, activation, site, edit, passes)
        passes.fired[site, index] += 1
    return activation


def check_real(edit: Edit, site: Site, mask: Tensor | None, *, batch: int) -> None:
    """An edit of a padding token changes nothing that is measured: say so instead."""
    if edit.positions is None or mask is None or mask.shape[0] != batch:
        return
    rows = rows_of_positions(edit.positions, batch).to(mask.device)
    inside = rows < mask.shape[1]
    padding = inside & (mask.gather(1, rows.clamp(max=mask.shape[1] - 1)) == 0)
    if bool(padding.any()):
        prompt, which = padding.nonzero()[0].tolist()
        raise ValueError(
            f"{edit.name} at {site}: position {int(rows[prompt, which])} of prompt {prompt} is "
            "padding; give one index for each prompt, such as prompts.last"
        )


def _checked(
    changed: Any, activation: Tensor, site: Site, edit: AnyEdit, passes: _Passes
) -> Tensor:
    if not isinstance(changed, Tensor):
        raise TypeError(f"{_name(edit)} at {site} returned {type(changed).__name__}, not a tensor")
    for what in ("shape", "dtype", "device"):
        found, expected = getattr(changed, what), getattr(activation, what)
        if found != expected:
            raise ValueError(
                f"{_name(edit)} at {site} returned {what} {found}, the activation has {expected}"
            )
    if passes.not_finite == "refuse" and not is_finite(changed, site):
        raise FloatingPointError(
            f"{_name(edit)} at {site} gave NaN or Inf; "
            'intervening(..., not_finite="keep") lets it pass'
        )
    return changed


def is_finite(activation: Tensor, site: Site) -> bool:
    """Whether all numbers are finite; a masked score may be minus infinity."""
    if bool(torch.isfinite(activation.sum())):
        return True
    masked = (activation == -torch.inf) & (site.stream == "scores")
    return bool((torch.isfinite(activation) | masked).all())


def _check_fired(listed: Mapping[Site, list[AnyEdit]], passes: _Passes) -> None:
    if listed and passes.count == 0:
        raise EditNeverFired("no forward pass ran inside intervening(...): call the model there")
    silent = [key for key, count in passes.fired.items() if count == 0]
    if silent:
        names = ", ".join(f"{_name(listed[site][i])} at {site}" for site, i in silent)
        positions = [getattr(listed[site][i], "positions", None) for site, i in silent]
        why = (
            f"its positions {positions[0]} were in none of the passes"
            if positions[0] is not None
            else "the site was not reached"
        )
        raise EditNeverFired(
            f"{names} never fired in {passes.count} forward pass(es): {why}. "
            "The results are those of the unedited model"
        )


def _name(edit: AnyEdit) -> str:
    return edit.name if isinstance(edit, Edit) else getattr(edit, "__name__", "the edit")
