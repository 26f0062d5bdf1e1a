"""Which attention heads a layer has, by the numbers they were trained with.

Heads can be removed from a model. Edits, analyses and results go on naming the others by their
original numbers; tensors hold only the heads there are, in the order of these numbers.

Models are not checked to be `HookedModel`s here: that would ask what they can do, and that is
found out with the help of these functions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.sites import Site, Stream

_SHARED: frozenset[Stream] = frozenset({"k", "v", "k_rot"})


@dataclass(frozen=True)
class LayerHeads:
    """The query heads of one layer, in order; the key-value heads are those that they read.

    `group` is how many query heads shared a key-value head when none was removed: query head h
    reads key-value head h // group.
    """

    query: tuple[int, ...]
    group: int = 1

    @cached_property
    def key_value(self) -> tuple[int, ...]:
        """The key-value heads that some query head reads."""
        return tuple(sorted({head // self.group for head in self.query}))

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """For each query head, where its key-value head stands among those there are."""
        return tuple(self.key_value.index(head // self.group) for head in self.query)

    def of(self, stream: Stream) -> tuple[int, ...]:
        """The heads along the head axis of a stream."""
        return self.key_value if stream in _SHARED else self.query


def at(model: Any, layer: int) -> LayerHeads:
    """The heads that `layer` of `model` has."""
    kept = getattr(model, "kept_heads", None)
    if kept is not None:
        return kept[layer]
    heads = model.cfg.n_heads
    return LayerHeads(tuple(range(heads)), heads // (_key_value_heads(model)))


def count(model: Any, stream: Stream = "z") -> int:
    """How many heads `stream` had in each layer before any was removed."""
    return _key_value_heads(model) if stream in _SHARED else model.cfg.n_heads


def all(model: Any, stream: Stream = "z") -> list[tuple[int, int]]:
    """Every head there is, (layer, head), layer by layer; key-value heads for k and v."""
    layers = range(model.cfg.n_layers)
    return [(layer, head) for layer in layers for head in at(model, layer).of(stream)]


def present(model: Any, stream: Stream = "z") -> Bool[Tensor, "layer head"]:
    """Which heads there are, at full width: False for those that were removed."""
    return ~on_grid(model, torch.zeros(len(all(model, stream))), stream).isnan()


def numbers(model: Any, site: Site) -> tuple[int, ...] | None:
    """The numbers of the heads along the head axis of `site`; None where they are all there."""
    kept = getattr(model, "kept_heads", None)
    return None if kept is None or "head" not in site.axes else kept[site.layer].of(site.stream)


def check(model: Any, site: Site, heads: Iterable[int]) -> None:
    """Raise unless `site` has each of these heads."""
    there = at(model, site.layer).of(site.stream)
    for head in heads:
        if head in there:
            continue
        total, name = count(model, site.stream), getattr(model.origin, "name", "this model")
        if not 0 <= head < total:
            raise ValueError(
                f"head {site.layer}.{head} does not exist: {site} has heads 0 to {total - 1}"
            )
        left = ", ".join(map(str, there)) or "none"
        raise ValueError(
            f"head {site.layer}.{head} was removed from {name}: of {site} there are left {left}"
        )


def places(model: Any, site: Site, heads: Iterable[int]) -> list[int]:
    """Where heads, by their numbers, stand along the head axis of `site`; an error for others."""
    heads = list(heads)
    check(model, site, heads)
    there = at(model, site.layer).of(site.stream)
    return [there.index(head) for head in heads]


def is_empty(model: Any, site: Site) -> bool:
    """Whether all heads of the site's layer were removed, so that what flows there is empty."""
    return numbers(model, site) == ()


def on_grid(
    model: Any, values: Float[Tensor, "cell ..."], stream: Stream = "z"
) -> Float[Tensor, "layer head ..."]:
    """Values of the heads there are, in the order of `all`, at full width; NaN for the others."""
    shape = (model.cfg.n_layers, count(model, stream), *values.shape[1:])
    found = values.new_full(shape, torch.nan)
    for (layer, head), value in zip(all(model, stream), values, strict=True):
        found[layer, head] = value
    return found


def widened(
    model: Any, site: Site, values: Float[Tensor, "..."], axis: int
) -> Float[Tensor, "..."]:
    """Values with the heads of `site` along `axis`, at full width: NaN for a removed head."""
    there = numbers(model, site)
    if there is None:
        return values
    shape = list(values.shape)
    shape[axis] = count(model, site.stream)
    where = torch.tensor(there, dtype=torch.long, device=values.device)
    return values.new_full(shape, torch.nan).index_copy(axis, where, values)


def _key_value_heads(model: Any) -> int:
    return getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads
