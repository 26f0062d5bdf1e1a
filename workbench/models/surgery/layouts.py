"""Where an architecture keeps the weights of its heads, and how to cut some of them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from hooks.heads import LayerHeads

Tensors = dict[str, Tensor]
"""Weights and buffers by the names that the model's own library gives them."""


@dataclass(frozen=True)
class Part:
    """One matrix of attention: the axis of its weight along which the heads lie.

    width    so many head widths belong to one head
    copies   so many times all heads follow one another
    """

    name: str
    axis: int
    key_value: bool = False
    width: int = 1
    copies: int = 1
    output: bool = False  # the last one, whose bias belongs to no head

    def rows(self, before: LayerHeads, after: LayerHeads, d_head: int) -> Int[Tensor, " row"]:
        """Which rows (or columns) of the matrix as it is are those of the heads that stay."""
        old, new = (
            (heads.key_value if self.key_value else heads.query) for heads in (before, after)
        )
        wide = self.width * d_head
        one = [old.index(head) * wide + at for head in new for at in range(wide)]
        rows = [copy * len(old) * wide + row for copy in range(self.copies) for row in one]
        return torch.tensor(rows, dtype=torch.long)


@dataclass(frozen=True)
class Layout:
    """Names within one architecture: its layers, their attention, what belongs to it alone."""

    layers: str
    attention: str
    parts: tuple[Part, ...]
    norm: str  # before the attention, and read by nothing else
    inner_norms: tuple[str, ...] = ()  # within the attention

    def of_layer(self, layer: int) -> str:
        """The prefix of a layer's names."""
        return f"{self.layers}.{layer}."

    def of_attention(self, layer: int) -> str:
        """The prefix of the names of a layer's attention."""
        return f"{self.of_layer(layer)}{self.attention}."

    def cut(
        self, tensors: Tensors, layer: int, before: LayerHeads, after: LayerHeads, d_head: int
    ) -> None:
        """Take out of `tensors` what belongs to heads that do not stay in `layer`."""
        here = self.of_attention(layer)
        for part in self.parts:
            rows = part.rows(before, after, d_head)
            weight, bias = f"{here}{part.name}.weight", f"{here}{part.name}.bias"
            rows = rows.to(tensors[weight].device)
            tensors[weight] = tensors[weight].index_select(part.axis, rows)
            if bias in tensors and not part.output:
                tensors[bias] = tensors[bias].index_select(0, rows)
        if not after.query:
            idle = [f"{self.of_layer(layer)}{self.norm}."]
            idle += [f"{here}{name}." for name in self.inner_norms]
            for name in [name for name in tensors if name.startswith(tuple(idle))]:
                del tensors[name]

    def add(self, tensors: Tensors, layer: int, constant: Tensor) -> None:
        """Let the attention of `layer` add a constant to the residual stream."""
        name = f"{self.of_attention(layer)}{self.parts[-1].name}"
        bias, weight = tensors.get(f"{name}.bias"), tensors[f"{name}.weight"]
        total = constant.double() if bias is None else bias.double() + constant.double()
        tensors[f"{name}.bias"] = total.to(weight)

    def trim(self, model: nn.Module, layer: int, heads: LayerHeads) -> None:
        """Make the modules of a layer those of the heads it has."""
        block: Any = model.get_submodule(f"{self.layers}.{layer}")
        attention: Any = block.get_submodule(self.attention)
        if not heads.query:
            setattr(block, self.norm, nn.Identity())
            for name in self.inner_norms:
                setattr(attention, name, nn.Identity())
        if hasattr(attention, "num_key_value_groups"):
            each = len(heads.query) // max(len(heads.key_value), 1)
            attention.num_key_value_groups = each if is_even(heads) else 1

    def fit(self, model: nn.Module) -> None:
        """Let the matrices say how large they are."""
        for layer in range(len(model.get_submodule(self.layers))):  # type: ignore[arg-type]
            for part in self.parts:
                module: Any = model.get_submodule(f"{self.of_attention(layer)}{part.name}")
                if isinstance(module, nn.Linear):
                    module.out_features, module.in_features = module.weight.shape
                else:
                    module.nx, module.nf = module.weight.shape


def is_even(heads: LayerHeads) -> bool:
    """Whether each key-value head is read by equally many query heads."""
    each = len(heads.query) // max(len(heads.key_value), 1)
    return heads.reads == tuple(index // max(each, 1) for index in range(len(heads.query)))


_LLAMA_PARTS = (
    Part("q_proj", 0),
    Part("k_proj", 0, key_value=True),
    Part("v_proj", 0, key_value=True),
    Part("o_proj", 1, output=True),
)
_LLAMA = Layout("model.layers", "self_attn", _LLAMA_PARTS, "input_layernorm")
_WITH_NORMS = Layout(
    "model.layers", "self_attn", _LLAMA_PARTS, "input_layernorm", ("q_norm", "k_norm")
)

LAYOUTS: Mapping[str, Layout] = {
    "GPT2LMHeadModel": Layout(
        "transformer.h", "attn", (Part("c_attn", 1, copies=3), Part("c_proj", 0, output=True)),
        "ln_1",
    ),
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": _WITH_NORMS,
    "Gemma2ForCausalLM": _LLAMA,
    "Gemma3ForCausalLM": _WITH_NORMS,
    "GPTNeoXForCausalLM": Layout(
        "gpt_neox.layers", "attention",
        (Part("query_key_value", 0, width=3), Part("dense", 1, output=True)), "input_layernorm",
    ),
}  # fmt: skip


def can_cut(model: nn.Module) -> bool:
    """Whether it is known how to remove heads from a model of this architecture."""
    return type(model).__name__ in LAYOUTS


def layout_of(model: nn.Module) -> Layout:
    """The layout of a model; an error that names those there are, where it has none."""
    name = type(model).__name__
    if name not in LAYOUTS:
        raise ValueError(
            f"heads cannot be removed from {name}: it is known how for {', '.join(LAYOUTS)}. "
            "Ablate them instead: heads.ablate_each, or edits.zero(heads=...)"
        )
    return LAYOUTS[name]
