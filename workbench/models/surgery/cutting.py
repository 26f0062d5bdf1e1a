"""Removing heads: a new model whose matrices are smaller."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import heads
from hooks.heads import LayerHeads
from workbench.models.bridge import Model, wrap
from workbench.models.surgery.attention import bridge_of
from workbench.models.surgery.layouts import Layout, layout_of
from workbench.models.surgery.plain import assembled, parameters_of, skeleton, tensors_of

NOTHING: Mapping[int, Tensor] = {}


@torch.no_grad()
def cut(
    model: Model,
    kept: Sequence[Sequence[int]],
    *,
    constants: Mapping[int, Float[Tensor, " d_model"]] = NOTHING,
    how: str = "",
) -> Model:
    """A new model that has, in each layer, only the query heads `kept`, by their first numbers.

    A key-value head goes with the last query head that reads it; a layer without heads runs no
    attention. `constants` are added to what the attention of a layer writes, and `how` goes into
    the new model's origin. The model itself is left as it is. Nothing else changes: with all
    heads kept and no constants the new model is the same, bit for bit.
    """
    layout = layout_of(model.original_model)
    before = [heads.at(model, layer) for layer in range(model.cfg.n_layers)]
    after = _checked(model, before, kept)
    tensors = tensors_of(model.original_model)
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        if new != old:
            layout.cut(tensors, layer, old, new, model.cfg.d_head)
    for layer, constant in constants.items():
        layout.add(tensors, layer, constant)
    inner: Any = model.original_model
    bare = skeleton(type(inner), inner.config)
    source = "; ".join([model.origin.source, *_said(before, after, how)])
    return finished(
        assembled(bare, tensors, layout, after), after, model.tokenizer, name=_named(model, after),
        source=source,
    )  # fmt: skip


def finished(
    inner: nn.Module, kept: Sequence[LayerHeads], tokenizer: Any, *, name: str, source: str
) -> Model:
    """A plain model whose layers have these heads, ready to be studied."""
    whole = all(len(one.query) == inner.config.num_attention_heads for one in kept)  # type: ignore[union-attr]
    if whole:
        return wrap(inner, tokenizer, name=name, source=source)
    build = partial(bridge_of, kept=kept)
    model = wrap(inner, tokenizer, name=name, source=source, build=build)
    model.kept_heads = tuple(kept)
    return model


def parameters(model: Model) -> int:
    """How many numbers the model has learned; weights that are tied count once."""
    return sum(one.numel() for one in parameters_of(model.original_model).values())


def layout(model: Model) -> Layout:
    """How the heads of this model lie in its weights; an error where that is not known."""
    return layout_of(model.original_model)


def _checked(
    model: Model, before: Sequence[LayerHeads], kept: Sequence[Sequence[int]]
) -> list[LayerHeads]:
    if len(kept) != len(before):
        raise ValueError(f"kept heads of {len(kept)} layers for a model of {len(before)}")
    if not any(map(len, kept)):
        raise ValueError(f"no head of {model.origin.name} would be left: keep at least one")
    for layer, numbers in enumerate(kept):
        heads.check(model, heads.Site("z", layer), numbers)
        twice = [head for head in numbers if list(numbers).count(head) > 1]
        if twice:
            raise ValueError(f"head {layer}.{twice[0]} is kept twice: name it once")
    pairs = zip(before, kept, strict=True)
    return [LayerHeads(tuple(sorted(numbers)), old.group) for old, numbers in pairs]


def _said(before: Sequence[LayerHeads], after: Sequence[LayerHeads], how: str) -> list[str]:
    """What was removed, as an origin says it."""
    gone = [
        f"{layer}.{head}"
        for layer, (old, new) in enumerate(zip(before, after, strict=True))
        for head in old.query
        if head not in new.query
    ]
    if not gone:
        return []
    return [f"without the heads {', '.join(gone)}{f' ({how})' if how else ''}"]


def _named(model: Model, after: Sequence[LayerHeads]) -> str:
    gone = len(after) * model.cfg.n_heads - sum(len(one.query) for one in after)
    first = model.origin.name.split(" without ")[0]
    if not gone:
        return first
    return f"{first} without {gone} head{'s' if gone > 1 else ''}"
