"""From a bridge to the model that its own library makes, and from weights to such a model."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from hooks.heads import LayerHeads
from workbench.models.surgery.layouts import Layout, Tensors

Tied = Literal["once", "each"]


def tensors_of(model: nn.Module) -> Tensors:
    """Every weight and buffer, by the names the model's library gives them; nothing is copied."""
    return dict(_walk(model, ""))


def parameters_of(model: nn.Module, *, tied: Tied = "once") -> dict[str, Tensor]:
    """The weights alone; those that are tied stand under the first of their names, or each."""
    found: dict[str, Tensor] = {
        name: one for name, one in _walk(model, "") if isinstance(one, nn.Parameter)
    }
    if tied == "each":
        return found
    seen: dict[int, str] = {}
    return {name: one for name, one in found.items() if seen.setdefault(id(one), name) == name}


def skeleton(kind: type[nn.Module], config: Any) -> nn.Module:
    """A model of this kind without weights; its buffers are in place."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        bare = kind(copy.deepcopy(config))
    return bare


@torch.no_grad()
def assembled(
    bare: nn.Module, tensors: Tensors, layout: Layout, kept: Sequence[LayerHeads]
) -> nn.Module:
    """The bare model with these weights, in the shapes that they have."""
    for layer, heads in enumerate(kept):
        layout.trim(bare, layer, heads)
    copies: dict[int, Any] = {}
    places = list(_places(bare))
    if unexpected := sorted(set(tensors) - {full for full, *_ in places}):
        raise ValueError(f"the model has no place for the weights {', '.join(unexpected[:6])}")
    for full, names, name, kind in places:
        given, here = tensors.get(full), names[name]
        if given is not None:
            if id(given) not in copies:
                copies[id(given)] = kind(given.clone())
            names[name] = copies[id(given)]
        elif here is not None and here.is_meta:
            raise ValueError(f"there is no {full} among the weights")
    layout.fit(bare)
    return bare.eval().requires_grad_(False)


def _places(model: nn.Module) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """Where weights and buffers are kept: the full name, a dictionary, the name there, the kind."""
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for names, kind in ((module._parameters, nn.Parameter), (module._buffers, Tensor)):
            yield from ((prefix + name, names, name, kind) for name in names)


def _walk(module: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Through what was wrapped, as if it had not been."""
    while isinstance(module, GeneralizedComponent):
        module = module.original_component  # type: ignore[assignment]
    # TransformerLens gives the unembedding a bias of zeros where it has none, as a buffer.
    buffers = {} if isinstance(module, nn.Linear) else module._buffers
    for names in (module._parameters, buffers):
        yield from ((f"{prefix}{name}", one) for name, one in names.items() if one is not None)
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{prefix}{name}.")
