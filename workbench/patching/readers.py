"""What a reader makes of the residual stream, and what its gradient says about the stream."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture
from hooks.sites import Stream
from workbench.patching.graph import Graph, Part

PARTS: tuple[Part, ...] = ("q", "k", "v")

_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}
_ROUGH = 5e-2  # for half precision


@dataclass(frozen=True, eq=False)
class Projections:
    """How each layer's q, k and v come out of the residual stream: a norm, a matrix, a bias.

    The norm is the block's own module, called outside the model's forward pass, so that no hook
    sees it. `checked` refuses a model whose q, k and v come out otherwise.
    """

    model: HookedModel

    @classmethod
    @torch.no_grad()
    def checked(cls, model: HookedModel, prompts: Prompts) -> "Projections":
        """The projections of `model`, compared with what flows through q, k and v in a run."""
        found = cls(model)
        layers = range(model.cfg.n_layers)
        streams: list[Stream] = ["resid_pre", *PARTS]
        seen = capture(
            model, prompts[:1], [Site(one, layer) for one in streams for layer in layers]
        )
        for layer, part in product(layers, PARTS):
            right = seen[Site(part, layer)]
            ours = found.read(layer, part, seen[Site("resid_pre", layer)])
            error = float((ours - right).abs().max())
            if error > _TOLERANCE.get(ours.dtype, _ROUGH) * float(right.abs().max()):
                raise ValueError(
                    f"{part} of layer {layer} in {_name(model)} "
                    "is not what its matrix makes of the normalised residual stream (off by "
                    f"{error:.2g}), so what single heads read is not known here"
                )
        return found

    def norm(self, layer: int) -> Any:
        """The norm in front of the layer's attention."""
        module = self.model.blocks[layer].ln1
        return getattr(module, "original_component", None) or module

    def weight(self, layer: int, part: Part) -> Float[Tensor, "head d_model d_head"]:
        """The matrix of each head (of each key-value head, for k and v)."""
        return getattr(self.model.blocks[layer].attn, f"W_{part.upper()}")

    def read(
        self, layer: int, part: Part, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos head d_head"]:
        """q, k or v when all heads read the same stream."""
        normed = self.norm(layer)(stream)
        found = einsum(
            normed, self.weight(layer, part), "batch pos d, head d d_head -> batch pos head d_head"
        )
        return self._with_bias(layer, part, found)

    def read_each(
        self,
        layer: int,
        part: Part,
        streams: Float[Tensor, "chosen batch pos d_model"],
        heads: list[int],
    ) -> Float[Tensor, "batch pos chosen d_head"]:
        """q, k or v of some heads, each of which reads a stream of its own."""
        normed = self.norm(layer)(streams)
        weight = self.weight(layer, part)[heads]
        found = einsum(normed, weight, "head batch pos d, head d d_head -> batch pos head d_head")
        return self._with_bias(layer, part, found, heads)

    def pull_back(
        self,
        layer: int,
        part: Part,
        gradient: Float[Tensor, "batch pos head d_head"],
        stream: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "head batch pos d_model"]:
        """The gradient at each head's reading of the stream, from that at q, k or v."""
        weight = self.weight(layer, part).detach()
        outer = einsum(gradient, weight, "batch pos head d_head, head d d_head -> head batch pos d")
        with torch.inference_mode(mode=False), torch.enable_grad():
            # One reading for each head, so that the norm's derivative keeps them apart.
            inner = stream.detach().expand(outer.shape).clone().requires_grad_()
            (found,) = torch.autograd.grad(self.norm(layer)(inner), inner, outer)
        return found

    def _with_bias(
        self, layer: int, part: Part, found: Tensor, heads: list[int] | None = None
    ) -> Tensor:
        bias = getattr(self.model.blocks[layer].attn, f"b_{part.upper()}", None)
        if bias is None:
            return found
        return found + (bias if heads is None else bias[heads])


def heads_of(graph: Graph, part: Part) -> int:
    """How many heads a part has: query heads for q, key-value heads for k and v."""
    return graph.heads if part == "q" else graph.key_value_heads


def _name(model: HookedModel) -> str:
    return str(getattr(model.cfg, "architecture", "this model"))
