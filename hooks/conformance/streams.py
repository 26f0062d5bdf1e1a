"""Which streams of a model can be read and written, and why the others cannot."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hooks import heads
from hooks.conformance import identities
from hooks.prompts import Prompts
from hooks.sites import STREAMS, Access, Site, Stream

_ONCE = ("embed", "final")  # streams that no layer owns
_MASKED = -1e4  # scores below this stand for "may not look there"
_NO_PLACE = "this architecture has no such place"


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward pass that has shown what was asked."""


@dataclass(frozen=True)
class _Probe:
    """A model, two short prompts, and what one pass of them left at every site there is."""

    model: Any
    prompts: Prompts
    present: Mapping[Stream, list[int]]  # the layers that have a hook point of this name
    seen: Mapping[Site, Any]
    counts: Mapping[Site, int]


@torch.no_grad()
def audit(model: Any) -> Access:
    """Which streams of `model` can be read and written, and why the others cannot.

    A stream is readable when, in every layer, its hook point fires exactly once in a pass and
    holds what `hooks.sites.MEANING` says, as far as shapes and identities can tell. It is
    writable when, in every kind of layer, a change there reaches the end of its block. Costs a
    few forward passes of a few tokens.
    """
    prompts = _short_prompts(model)
    present: dict[Stream, list[int]] = {s: _layers_with(model, s) for s in STREAMS}
    probe = _Probe(model, prompts, present, *_read_all(model, prompts, present))
    refused: dict[str, str] = {}
    for stream in STREAMS:
        reason = _why_unreadable(probe, stream)
        if reason:
            refused[stream] = reason
    kept = {site: found for site, found in probe.seen.items() if site.stream not in refused}
    refused.update(identities.refusals(model, kept))
    readable: list[Stream] = [stream for stream in STREAMS if stream not in refused]
    dead = _dead_streams(probe, readable)
    refused.update(dead)
    return Access(frozenset(readable), frozenset(readable) - frozenset(dead), refused)


def sites_of(stream: Stream, layers: range | list[int]) -> list[Site]:
    """The sites of `stream` in `layers`; one alone for a stream that exists once."""
    return [Site(stream)] if stream in _ONCE else [Site(stream, layer) for layer in layers]


def _short_prompts(model: Any) -> Prompts:
    """Two short prompts, of a length that cannot be mistaken for a number of heads."""
    cfg = model.cfg
    layers = range(cfg.n_layers)
    taken = {2, *(len(heads.at(model, n).of(s)) for n in layers for s in ("z", "k"))}
    length = min(next(n for n in (5, 6, 7, *range(9, 99)) if n not in taken), cfg.n_ctx)
    device = next(model.original_model.parameters()).device
    tokens = torch.arange(2 * length, device=device) % cfg.d_vocab
    return Prompts.of(tokens.reshape(2, length))


def _layers_with(model: Any, stream: Stream) -> list[int]:
    if stream in _ONCE:
        return list(range(model.cfg.n_layers)) if Site(stream).hook_name in model.hook_dict else []
    names = model.hook_dict
    return [n for n in range(model.cfg.n_layers) if Site(stream, n).hook_name in names]


def _read_all(
    model: Any, prompts: Prompts, present: Mapping[Stream, list[int]]
) -> tuple[dict[Site, Any], dict[Site, int]]:
    """Everything that flows through the sites in one pass, and how often each fired."""
    sites = [
        site for stream, layers in present.items() if layers for site in sites_of(stream, layers)
    ]
    seen: dict[Site, Any] = {}
    counts = dict.fromkeys(sites, 0)

    def read(site: Site) -> Callable[[Any, object], None]:
        def keep(activation: Any, hook: object) -> None:
            counts[site] += 1
            seen[site] = activation.detach().clone() if isinstance(activation, Tensor) else None

        return keep

    with model.hooks(fwd_hooks=[(site.hook_name, read(site)) for site in sites]):
        model(prompts)
    return seen, counts


def _why_unreadable(probe: _Probe, stream: Stream) -> str | None:
    present, layers = probe.present, probe.present[stream]
    if not layers:
        parallel = stream == "resid_mid" and present["attn_out"] and present["mlp_out"]
        return identities.NOTHING_BETWEEN if parallel else _NO_PLACE
    if len(layers) < probe.model.cfg.n_layers:
        return f"only {len(layers)} of its {probe.model.cfg.n_layers} layers have it"
    for site in sites_of(stream, layers):
        count = probe.counts[site]
        if count == 0:
            return "its hook point is there but never fires"
        if count > 1:
            return f"its hook point fires {count} times in one pass"
        wrong = _wrong_shape(probe, site)
        if wrong:
            return wrong
    return None


def _wrong_shape(probe: _Probe, site: Site) -> str | None:
    activation = probe.seen[site]
    if activation is None:
        return "its hook point holds something else than a tensor"
    cfg, (batch, pos) = probe.model.cfg, probe.prompts.tokens.shape
    there = {cfg.n_heads, getattr(cfg, "n_key_value_heads", None) or cfg.n_heads}
    numbers = heads.numbers(probe.model, site)
    there = there if numbers is None else {len(numbers)}
    sizes = {"batch": {batch}, "d_model": {cfg.d_model}, "head": there}
    sizes |= {axis: {pos} for axis in ("pos", "query", "key")}
    shape = tuple(activation.shape)
    fits = len(shape) == len(site.axes) and all(
        size in sizes.get(axis, {size}) for size, axis in zip(shape, site.axes, strict=True)
    )
    return None if fits else f"its hook point holds shape {shape}, not {site.axes}"


def _dead_streams(probe: _Probe, readable: list[Stream]) -> dict[str, str]:
    """The streams at which a change does not reach what comes after."""
    plain: dict[Site | None, Tensor] = {}  # passes without any edit, by where they ended
    dead: dict[str, str] = {}
    for stream in readable:
        if stream == "resid_mid":  # written through attn_out, so judged by it below
            continue
        kinds = [[0]] if stream in _ONCE else _kinds(probe.model)
        # Within a kind one live layer is enough: a trained layer may do nothing at all.
        sites = [_not_empty(probe.model, sites_of(stream, kind)) for kind in kinds]
        sites = [kind for kind in sites if kind]
        if not all(any(_is_live(probe, site, plain) for site in kind) for kind in sites):
            dead[stream] = "TransformerLens drops what is written there"
    if "resid_mid" in readable and ("attn_out" in dead or "attn_out" not in readable):
        dead["resid_mid"] = "it is written through attn_out, which cannot be written"
    return dead


def _not_empty(model: Any, sites: list[Site]) -> list[Site]:
    return [site for site in sites if not heads.is_empty(model, site)]


def _kinds(model: Any) -> list[list[int]]:
    """The layers, grouped by what they are made of."""
    config = getattr(model.original_model, "config", None)
    types = getattr(config, "layer_types", None) or [""] * model.cfg.n_layers
    groups: dict[tuple[str, ...], list[int]] = {}
    for layer in range(model.cfg.n_layers):
        made_of = [type(module).__name__ for module in model.blocks[layer].modules()]
        groups.setdefault((types[layer], *made_of), []).append(layer)
    return list(groups.values())


def _is_live(probe: _Probe, site: Site, plain: dict[Site | None, Tensor]) -> bool:
    until = None if site.stream in ("final", "resid_post") else Site("resid_post", site.layer)
    if until not in plain:
        plain[until] = _run(probe, until, [])
    changed = _run(probe, until, [(site.hook_name, lambda x, hook: changed_at_random(x))])
    return not torch.equal(plain[until], changed)


def changed_at_random(activation: Tensor) -> Tensor:
    """Other values of the same size: another prompt's, and more; masked scores stay masked.

    Neither a norm nor a softmax undoes it, and no precision rounds it away.
    """
    allowed = activation > _MASKED
    size = activation.where(allowed, 0).abs().max().clamp(min=1e-3)
    ramp = torch.linspace(0.25, 0.75, activation.shape[-1]).to(activation)
    return torch.where(allowed, activation.flip(0) * 0.5 + size * ramp, activation)


def _run(probe: _Probe, until: Site | None, hooks: list[Any]) -> Tensor:
    """What flows through `until` (the logits when there is none), under `hooks`."""
    kept: list[Tensor] = []

    def stop(activation: Tensor, hook: object) -> None:
        kept.append(activation.detach().clone())
        raise _Enough

    if until is not None:
        hooks = [*hooks, (until.hook_name, stop)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a dropped edit warns, and shows in the comparison
        with probe.model.hooks(fwd_hooks=hooks):
            with suppress(_Enough):
                kept.append(probe.model(probe.prompts))
    return kept[0]
