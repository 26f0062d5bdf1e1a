"""One run of the prompts, kept so that its blocks can run again on parts of it."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter  # noqa: TID251 - a plan says how long it will take
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from hooks.capture import last_logits
from hooks.prompts import Prompts
from hooks.replay.reading import Tail, tail_of
from hooks.replay.tape import KeysAndValues, KeysAndValuesHeld, Tape
from hooks.sites import HookedModel, Site

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 2e-2}
"""How far apart two ways to the same numbers may be, as a share of the largest of them."""

ROUNDING = {
    dtype: torch.finfo(dtype).eps * (16 if dtype in (torch.float64, torch.float32) else 1)
    for dtype in CLOSE
}
"""What the order of sums alone changes in logits, as a share of the largest of them."""


@dataclass(frozen=True)
class Savings:
    """What is left out because it cannot differ, and why something is not."""

    layers: bool
    positions: bool
    reads: bool
    why: str = ""  # empty when everything is saved

    def __str__(self) -> str:
        on = [name for name in ("layers", "positions", "reads") if getattr(self, name)]
        off = f"; not {self.why}" if self.why else ""
        return f"saves {', '.join(on) or 'nothing'}{off}"


@dataclass(frozen=True, eq=False)
class Recording:
    """What one forward pass of `prompts` left behind, block by block."""

    model: HookedModel
    prompts: Prompts
    resid: tuple[Float[Tensor, "batch pos d_model"], ...]  # entering each block, and the last norm
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]  # the blocks' other arguments
    tape: Tape | None
    tail: Tail | None
    seen: dict[Site, Tensor]
    savings: Savings
    scale: Float[Tensor, " batch"]  # the largest logit at each prompt's last token
    seconds: float

    @property
    def bytes(self) -> int:
        """What is held in memory for as long as the sweep lasts."""
        kept = [*self.resid, *self.seen.values()]
        if self.tape is not None:
            kept += [one for pair in self.tape.recorded.values() for one in pair]
        return sum(one.numel() * one.element_size() for one in kept)

    def run_block(
        self,
        layer: int,
        hidden: Float[Tensor, "row pos d_model"],
        *,
        rows: Int[Tensor, " row"],
        start: int,
        hooks: list[Any],
        held: KeysAndValues | None = None,
    ) -> Float[Tensor, "row pos d_model"]:
        """The output of one block for the prompts `rows` from position `start` on.

        `hidden` may end before the prompts do, where only padding is left. Attention looks at the
        recorded keys and values of earlier positions and at its own; or at what is `held`, which
        has all of them.
        """
        args, kwargs = self.calls[layer]
        keys = start + hidden.shape[1] if held is None else held[0].shape[2]
        cut = partial(self._cut, rows=rows, start=start, size=hidden.shape[1], keys=keys)
        args = tuple(cut(one) for one in args)
        kwargs = {name: cut(one) for name, one in kwargs.items()}
        if self.tape is not None:
            self.tape.rows, self.tape.start, self.tape.held = rows, start, held
        with ExitStack() as stack:
            if hooks:
                stack.enter_context(self.model.hooks(fwd_hooks=hooks))
            output = self.model.blocks[layer](hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    def keys_and_values(
        self,
        layer: int,
        hidden: Float[Tensor, "row pos d_model"],
        *,
        rows: Int[Tensor, " row"],
        start: int,
        hooks: list[Any],
    ) -> KeysAndValues:
        """What a block's attention would look at, at all positions; the rest of it is not run."""
        assert self.tape is not None, "positions are saved for models that take a cache alone"
        self.tape.holding = True
        try:
            self.run_block(layer, hidden, rows=rows, start=start, hooks=hooks)
        except KeysAndValuesHeld as ended:
            return ended.held
        finally:
            self.tape.holding = False
        raise RuntimeError(f"block {layer} ran without its cache of keys and values")

    def _cut(
        self, value: Any, *, rows: Int[Tensor, " row"], start: int, size: int, keys: int
    ) -> Any:
        """An argument of a block for some prompts and positions, by its rank alone."""
        if isinstance(value, tuple | list):
            cut = partial(self._cut, rows=rows, start=start, size=size, keys=keys)
            return type(value)(cut(one) for one in value)
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        batch, length = self.prompts.tokens.shape
        # In this order: positions in the cache, position ids, rotary tables, a mask's queries.
        axis = {1: 0, 2: 1, 3: 1, 4: 2}[value.ndim]
        if size < length and value.shape[axis] == length:
            value = value.narrow(axis, start, size)
        if value.ndim == 4 and keys < length == value.shape[3]:
            value = value.narrow(3, 0, keys)
        if value.ndim > 1 and value.shape[0] == batch > 1:
            value = value[rows]
        return value


_known: "WeakKeyDictionary[HookedModel, dict[str, tuple[Tail | None, Savings]]]"
_known = WeakKeyDictionary()  # what each model was found to allow, by its precision


@dataclass
class _Notes:
    """What hooks write down while the pass runs."""

    resid: list[Tensor] = field(default_factory=list)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    seen: dict[Site, Tensor] = field(default_factory=dict)


def record(model: HookedModel, prompts: Prompts, sites: Iterable[Site]) -> Recording:
    """Run `prompts` once and keep what the blocks were given, and what flows through `sites`."""
    device = next(model.original_model.parameters()).device
    prompts = prompts.to(device)
    notes = _Notes()
    tape = Tape() if takes_cache(model) else None
    began = perf_counter()
    with ExitStack() as stack:
        for block in model.blocks:
            handle = block.register_forward_pre_hook(_noting(notes), with_kwargs=True)
            stack.callback(handle.remove)
        last = model.blocks[-1].register_forward_hook(_ending(notes))
        stack.callback(last.remove)
        stack.enter_context(model.hooks(fwd_hooks=_reading(sites, notes)))
        arguments = {} if tape is None else {"past_key_values": tape, "use_cache": True}
        kept = {"logits_to_keep": 1} if "logits_to_keep" in _arguments(model) else {}
        model(prompts, **arguments, **kept)
    seconds = perf_counter() - began
    if tape is not None and len(tape.recorded) != len(notes.calls):
        tape = None
    key = str(notes.resid[0].dtype)
    known = _known.setdefault(model, {})
    tail, savings = known.get(key) or _savings(model, prompts, notes, tape)
    if int(prompts.lengths.max()) > 1:  # one token alone does not show what a suffix gives
        known[key] = tail, savings
    if tape is not None:  # the blocks' arguments hold it, whether or not positions are saved
        tape.rows, tape.start = prompts.lengths[:0], 0
    return Recording(
        model,
        prompts,
        tuple(notes.resid),
        tuple(notes.calls),
        tape if savings.positions else None,
        tail,
        notes.seen,
        savings,
        _scale(tail, prompts, notes),
        seconds,
    )


def _scale(tail: Tail | None, prompts: Prompts, notes: _Notes) -> Float[Tensor, " batch"]:
    if tail is None:
        return torch.zeros(len(prompts), device=prompts.tokens.device)
    rows = torch.arange(len(prompts), device=prompts.tokens.device)
    resid = rearrange(notes.resid[-1][rows, prompts.last], "batch d -> batch 1 d")
    return tail.logits(resid).abs().flatten(1).max(dim=1).values


def _arguments(model: HookedModel) -> Any:
    return inspect.signature(model.original_model.forward).parameters


def takes_cache(model: HookedModel) -> bool:
    """Whether its attention can be handed keys and values of earlier positions."""
    return "past_key_values" in _arguments(model)


def _noting(notes: _Notes) -> Callable[..., None]:
    def note(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(kwargs)
        hidden = args[0] if args else given.pop("hidden_states")
        notes.resid.append(hidden.detach())
        notes.calls.append((tuple(args[1:]), given))

    return note


def _ending(notes: _Notes) -> Callable[..., None]:
    def note(module: object, args: object, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        notes.resid.append(hidden.detach())

    return note


def _reading(sites: Iterable[Site], notes: _Notes) -> list[tuple[str, Any]]:
    def keep(site: Site) -> Callable[[Tensor, object], None]:
        def read(activation: Tensor, hook: object) -> None:
            notes.seen[site] = activation.detach().clone()

        return read

    return [(site.hook_name, keep(site)) for site in sites]


def _savings(
    model: HookedModel, prompts: Prompts, notes: _Notes, tape: Tape | None
) -> tuple[Tail | None, Savings]:
    """What is valid for this model: found out by replaying part of what was recorded."""
    if len(notes.calls) != model.cfg.n_layers:
        return None, Savings(False, False, False, "layers: its blocks are not called one by one")
    row = int(prompts.lengths.argmax())
    longest = Prompts(prompts.tokens[row : row + 1], prompts.lengths[row : row + 1])
    expected = last_logits(model, longest)
    at = int(longest.last)
    close = CLOSE[expected.dtype]
    tail = tail_of(model, notes.resid[-1][row : row + 1, at : at + 1], expected, close=close)
    if tail is None:
        why = "layers: what follows the blocks is not its last norm and unembedding"
        return None, Savings(False, False, False, why)
    columns = "" if tail.weight is not None else "columns: the unembedding is not linear in them"
    whole = Recording(
        model, prompts, tuple(notes.resid), tuple(notes.calls), tape, tail, {},
        Savings(True, True, True), torch.zeros(len(prompts)), 0.0,
    )  # fmt: skip
    if not _agrees(whole, row, 0, close):
        return None, Savings(False, False, False, "layers: its blocks give other numbers alone")
    why = _why_not_positions(notes, tape)
    if not why and at > 0:
        middle = (at + 1) // 2
        agrees = _agrees(whole, row, middle, close)
        why = "" if agrees else "positions: a suffix gives other numbers"
    reasons = "; ".join(reason for reason in (why, columns) if reason)
    return tail, Savings(True, not why, not columns, reasons)


def _why_not_positions(notes: _Notes, tape: Tape | None) -> str:
    if tape is None:
        return "positions: its attention takes no cache of keys and values"
    for args, kwargs in notes.calls:
        masks = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        masks = [one for one in masks if one.ndim == 4]
        if not masks:
            return "positions: its blocks are not given a mask"
        allowed = masks[0] if masks[0].dtype == torch.bool else masks[0] > -1e4
        if bool(allowed.triu(1).any()):
            return "positions: its attention is not causal"
    return ""


def _agrees(recording: Recording, row: int, start: int, close: float) -> bool:
    """Whether one prompt's blocks, run again from `start` on, end where they ended."""
    real = int(recording.prompts.lengths[row])
    rows = torch.tensor([row], device=recording.prompts.tokens.device)
    hidden = recording.resid[0][rows, start:]
    for layer in range(len(recording.calls)):
        hidden = recording.run_block(layer, hidden, rows=rows, start=start, hooks=[])
    expected = recording.resid[-1][rows, start:real]
    error = (hidden[:, : real - start] - expected).abs().max()
    return bool(error <= close * expected.abs().max())
