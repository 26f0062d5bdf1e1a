"""Where in a model an activation lives, and which of those places this model has.

Axis names, the same in every file:
    batch pos             prompts and token positions
    head d_head           attention heads and their width
    query key             the two positions of an attention pattern
    neuron d_model vocab  MLP neurons, residual stream, vocabulary
    layer                 blocks of the model, from 0

This file is the only one that knows the hook points' names.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

Stream = Literal[
    "embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out",
    "q", "k", "v", "q_rot", "k_rot", "z", "scores", "pattern",
    "neuron_pre", "neuron_up", "neuron", "final",
]  # fmt: skip
"""The kinds of activation a site can name; `MEANING` says what each one is."""

STREAMS: tuple[Stream, ...] = get_args(Stream)

MEANING: Mapping[Stream, str] = {
    "embed": "token embedding, without position embeddings",
    "resid_pre": "residual stream entering the block",
    "resid_mid": "residual stream between attention and MLP",
    "resid_post": "residual stream leaving the block",
    "attn_out": "what attention adds to the residual stream",
    "mlp_out": "what the MLP adds to the residual stream",
    "q": "queries as projected, before norms and rotary positions (per query head)",
    "k": "keys as projected, before norms and rotary positions (per key-value head)",
    "v": "values (per key-value head)",
    "q_rot": "queries as the dot product uses them",
    "k_rot": "keys as the dot product uses them",
    "z": "values mixed by attention, before W_O (per query head)",
    "scores": "attention scores before the softmax, masked entries very negative",
    "pattern": "attention after the softmax; rows sum to one",
    "neuron_pre": "MLP neurons before the non-linearity (the gate, for gated MLPs)",
    "neuron_up": "what the non-linearity's result is multiplied by (gated MLPs only)",
    "neuron": "what enters the MLP's output matrix (the product, for gated MLPs)",
    "final": "what enters the last norm",
}

_PATHS: Mapping[Stream, str] = {
    "embed": "hook_embed",
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "q_rot": "attn.hook_rot_q",
    "k_rot": "attn.hook_rot_k",
    "z": "attn.hook_z",
    "scores": "attn.hook_attn_scores",
    "pattern": "attn.hook_pattern",
    "neuron_pre": "mlp.hook_pre",
    "neuron_up": "mlp.hook_pre_linear",
    "neuron": "mlp.hook_post",
    "final": "ln_final.hook_in",
}

# Other names TransformerLens gives the same hook points; `Site.from_name` takes them too.
_OTHER_PATHS: Mapping[str, Stream] = {
    "embed.hook_out": "embed",
    "hook_in": "resid_pre",
    "hook_out": "resid_post",
    "attn.q.hook_out": "q",
    "attn.k.hook_out": "k",
    "attn.v.hook_out": "v",
    "attn.o.hook_in": "z",
    "mlp.out.hook_in": "neuron",
}

_VECTOR = ("batch", "pos", "d_model")
_PER_HEAD = ("batch", "pos", "head", "d_head")
_ATTENTION = ("batch", "head", "query", "key")
_NEURONS = ("batch", "pos", "neuron")

_AXES: Mapping[Stream, tuple[str, ...]] = {
    **dict.fromkeys(STREAMS, _VECTOR),
    **dict.fromkeys(("q", "k", "v", "q_rot", "k_rot", "z"), _PER_HEAD),
    **dict.fromkeys(("scores", "pattern"), _ATTENTION),
    **dict.fromkeys(("neuron_pre", "neuron_up", "neuron"), _NEURONS),
}

_WITHOUT_LAYER: frozenset[Stream] = frozenset({"embed", "final"})


@dataclass(frozen=True)
class Access:
    """What one model lets us do: the streams it has, and why it lacks the others."""

    readable: frozenset[str]
    writable: frozenset[str]
    refused: Mapping[str, str]  # stream -> why reading or writing it is refused


@runtime_checkable
class HookedModel(Protocol):
    """What we ask of a model, so that no analysis names TransformerLens.

    `workbench.models.load` and `workbench.models.wrap` give models that satisfy it.
    """

    @property
    def cfg(self) -> Any: ...
    @property
    def access(self) -> Access: ...
    @property
    def origin(self) -> Any: ...
    @property
    def blocks(self) -> Any: ...
    @property
    def original_model(self) -> Any: ...
    def hooks(self, fwd_hooks: list[Any]) -> AbstractContextManager[Any]: ...
    def __call__(self, input: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, order=True)
class Site:
    """One address in a model: a stream of activations at one layer.

    `embed` and `final` exist once, so they take no layer (`Site("embed")`).
    """

    stream: Stream
    layer: int = -1  # -1: not given; `embed` and `final` keep it as 0

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise ValueError(f"no stream {self.stream!r}; there are {', '.join(STREAMS)}")
        if self.stream in _WITHOUT_LAYER:
            if self.layer not in (-1, 0):
                raise ValueError(f"{self.stream!r} exists once: write Site({self.stream!r})")
            object.__setattr__(self, "layer", 0)
        elif not isinstance(self.layer, int) or self.layer < 0:
            raise ValueError(f"Site({self.stream!r}, {self.layer}): give a layer, counted from 0")

    def __str__(self) -> str:
        return self.stream if self.stream in _WITHOUT_LAYER else f"{self.stream} {self.layer}"

    @property
    def hook_name(self) -> str:
        """The name of the hook point in TransformerLens."""
        path = _PATHS[self.stream]
        return path if self.stream in _WITHOUT_LAYER else f"blocks.{self.layer}.{path}"

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes of what flows here, in order."""
        return _AXES[self.stream]

    @classmethod
    def from_name(cls, name: str) -> "Site":
        """The site that TransformerLens calls `name`, such as "blocks.5.attn.hook_z"."""
        found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        layer, path = (int(found[1]), found[2]) if found else (-1, name)
        known: Mapping[str, Stream] = {
            **{path: stream for stream, path in _PATHS.items()},
            **_OTHER_PATHS,
        }
        stream = known.get(path)
        if stream is None or (stream in _WITHOUT_LAYER) != (found is None):
            raise ValueError(f"{name!r} is no site of ours; known: {', '.join(sorted(known))}")
        return cls(stream, layer)


def all(model: HookedModel, stream: Stream) -> list[Site]:
    """The sites of `stream` in every layer of `model`, from the first to the last."""
    if stream in _WITHOUT_LAYER:
        wanted = [Site(stream)]
    else:
        wanted = [Site(stream, layer) for layer in range(model.cfg.n_layers)]
    for site in wanted[:1]:
        check_readable(model, site)
    return wanted


def check_readable(model: HookedModel, site: Site) -> None:
    """Raise unless what `site` promises can be read from `model`."""
    _check(model, site, "read", _access(model).readable)


def check_writable(model: HookedModel, site: Site) -> None:
    """Raise unless an edit at `site` takes effect in `model`."""
    _check(model, site, "written", _access(model).writable)


def _access(model: HookedModel) -> Access:
    access = getattr(model, "access", None)
    if not isinstance(access, Access):
        raise TypeError(
            f"{type(model).__name__} does not say which sites it has: "
            "pass it through workbench.models.wrap(model, tokenizer) first"
        )
    return access


def _check(model: HookedModel, site: Site, verb: str, allowed: frozenset[str]) -> None:
    if not isinstance(site, Site):
        raise TypeError(f"expected a Site such as Site('z', 5), got {site!r}")
    if site.layer >= model.cfg.n_layers:
        last = model.cfg.n_layers - 1
        raise ValueError(f"{site} is not in this model: its layers are 0 to {last}")
    if site.stream not in allowed:
        architecture = getattr(model.cfg, "architecture", "this model")
        why = model.access.refused.get(site.stream, "this architecture does not have it")
        have = ", ".join(stream for stream in STREAMS if stream in allowed)
        raise ValueError(
            f"{site.stream} cannot be {verb} in {architecture}: {why}. Can be {verb}: {have}"
        )
