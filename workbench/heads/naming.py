"""Heads as values: how they are written, which a model has, and which of a list it has not."""

from collections.abc import Iterable
from operator import index

from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Site
from hooks import heads as numbering

Head = tuple[int, int]
"""(layer, head), both counted from zero; the numbers that heads had before any was removed."""


def named(*heads: Head) -> str:
    """Heads as they are written: "5.3", and several joined by "+"."""
    return "+".join(f"{layer}.{head}" for layer, head in heads)


def pairs(heads: Iterable[Head]) -> list[Head]:
    """These heads as plain numbers; an error that names what is no head."""
    found = []
    for one in heads:
        try:
            layer, head = map(index, one)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{one!r:.60} is no head: give a list of (layer, head), such as [(0, 1), (5, 3)]"
            ) from error
        found.append((layer, head))
    return found


def every(model: HookedModel) -> list[Head]:
    """All heads that the model has, layer by layer."""
    return numbering.all(model)


def column(model: HookedModel, head: Head) -> int:
    """Where a head stands along the head axis of what flows through its layer."""
    layer, number = head
    return numbering.places(model, Site("z", layer), [number])[0]


def output_matrix(model: HookedModel, head: Head) -> Float[Tensor, "d_head d_model"]:
    """What a head's z is multiplied by to be written."""
    return model.blocks[head[0]].attn.W_O[column(model, head)]


def checked(model: HookedModel, heads: Iterable[Head], *, least: int = 1) -> list[Head]:
    """These heads, or an error that names one that is not there or is there twice."""
    listed = pairs(heads)
    layers, width = model.cfg.n_layers, numbering.count(model)
    for at, (layer, head) in enumerate(listed):
        if not (0 <= layer < layers and 0 <= head < width):
            raise ValueError(
                f"there is no head {layer}.{head}: layers are 0 to {layers - 1}, heads 0 to "
                f"{width - 1}"
            )
        numbering.check(model, Site("z", layer), [head])
        if (layer, head) in listed[:at]:
            raise ValueError(f"head {layer}.{head} was given twice: give each head once")
    if len(listed) < least:
        raise ValueError(f"{len(listed)} heads were given: this takes at least {least}")
    return listed
