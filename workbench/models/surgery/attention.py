"""Attention with fewer heads, inside a bridge: TransformerLens counts them once for all layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge.bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import (
    AttentionBridge,
    JointQKVAttentionBridge,
)
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from hooks.heads import LayerHeads
from workbench.models.surgery.layouts import is_even

_CACHES = ("past_key_values", "layer_past")


def bridge_of(inner: Any, kept: Sequence[LayerHeads]) -> TransformerBridge:
    """A bridge around a model whose layers have these heads."""
    inner.set_attn_implementation("eager")

    def tell(adapter: Any) -> None:
        attention = adapter.component_mapping["blocks"].submodules["attn"]
        if isinstance(attention, JointQKVAttentionBridge):
            attention.split_qkv_matrix = _split

    with torch.random.fork_rng(devices=[]):
        bridge = build_bridge_from_module(
            inner, type(inner).__name__, hf_config=inner.config, post_adapter_hook=tell
        )
    for block, heads in zip(bridge.blocks, kept, strict=True):
        _adapt(block, heads, bridge.cfg)
    return bridge


class _LayerConfig:
    """The model's config, but for how many heads this layer has."""

    def __init__(self, shared: Any, heads: LayerHeads) -> None:
        vars(self).update(
            shared=shared, n_heads=len(heads.query), n_key_value_heads=len(heads.key_value)
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "shared":
            raise AttributeError(name)
        return getattr(self.shared, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.shared, name, value)


class _Uneven:
    """Each query head is given its key-value head, behind the cache, which holds them once."""

    reads: tuple[int, ...]

    def _update_kv_cache(self, k: Tensor, v: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
        k, v = super()._update_kv_cache(k, v, **given)  # type: ignore[misc]
        reads = torch.tensor(self.reads, device=k.device)
        return k.index_select(1, reads), v.index_select(1, reads)


class _NoHeads:
    """Attention that does not take place: it adds its bias, and what has heads is empty."""

    def forward(self: Any, *args: Any, **given: Any) -> tuple[Tensor, Tensor]:
        hidden = self.hook_in(given["hidden_states"] if "hidden_states" in given else args[0])
        batch, length, _ = hidden.shape
        keys = length
        if any(given.get(name) is not None for name in _CACHES):
            # The cache of the first layer says how many tokens the model has seen.
            mark = hidden.new_zeros(batch, 1, length, 1)
            keys = self._update_kv_cache(mark, mark, **given)[0].shape[2]
        flat, width = hidden.new_zeros(batch, length, 0), self.config.d_head
        for one in (self.q, self.k, self.v):
            one.hook_out(flat)
        for name in ("hook_rot_q", "hook_rot_k"):
            if hasattr(self, name):
                getattr(self, name)(hidden.new_zeros(batch, 0, length, width))
        looks = hidden.new_zeros(batch, 0, length, keys)
        pattern = self.hook_pattern(self.hook_attn_scores(looks))
        z = self.o.hook_in(flat)
        bias = self.b_O
        out = torch.zeros_like(hidden) if bias is None else bias.expand_as(hidden).contiguous()
        if z.requires_grad:  # so that a gradient by z is empty, not missing
            out = out + z.sum()
        return self.hook_out(self.o.hook_out(out)), pattern

    @property
    def W_Q(self: Any) -> Tensor:  # noqa: N802
        return self.o.weight.new_zeros(0, self.config.d_model, self.config.d_head)

    W_K = W_V = W_Q

    @property
    def W_O(self: Any) -> Tensor:  # noqa: N802
        return self.o.weight.new_zeros(0, self.config.d_head, self.config.d_model)

    @property
    def b_Q(self: Any) -> Tensor:  # noqa: N802
        return self.o.weight.new_zeros(0, self.config.d_head)

    b_K = b_V = b_Q  # noqa: N815


class _NoNorm:
    """The norm before an attention that does not take place."""

    def forward(self, hidden_states: Tensor, **given: Any) -> Tensor:
        return hidden_states


def _adapt(block: Any, heads: LayerHeads, config: Any) -> None:
    attention: AttentionBridge = block.attn
    attention.config = _LayerConfig(config, heads)
    if not heads.query:
        _become(_NoHeads, attention)
        _become(_NoNorm, block.ln1)
    elif not is_even(heads):
        _become(_Uneven, attention)
        vars(attention)["reads"] = heads.reads
    attention._hf_forward_wrapped = False  # so that the hooks' shapes are found out anew
    attention.setup_hook_compatibility()


_kinds: dict[tuple[type, type], type] = {}


def _become(trait: type, component: Any) -> None:
    """Give one component of a bridge a trait, before all that it does already."""
    kind = type(component)
    if (trait, kind) not in _kinds:
        _kinds[trait, kind] = type(f"{trait.__name__.strip('_')}{kind.__name__}", (trait, kind), {})
    component.__class__ = _kinds[trait, kind]


def _split(attention: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """The three matrices in a joint one, however many heads it has."""
    joint = getattr(attention, "c_attn", None)
    if joint is not None:  # GPT-2: all queries, then all keys, then all values, as columns
        weights = [part.T for part in joint.weight.tensor_split(3, dim=1)]
        biases = joint.bias.tensor_split(3)
    else:  # GPT-NeoX: each head's query, key and value, as rows
        joint = attention.query_key_value
        each = joint.weight.unflatten(0, (-1, 3, attention.head_size))
        weights = [each[:, part].flatten(0, 1) for part in range(3)]
        biases = [None] * 3
        if joint.bias is not None:
            each = joint.bias.unflatten(0, (-1, 3, attention.head_size))
            biases = [each[:, part].flatten() for part in range(3)]
    q, k, v = (_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))
    return q, k, v


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    # Without drawing weights, and without the warning for a matrix of none.
    made = nn.Linear(1, 1, bias=False, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.out_features, made.in_features = weight.shape
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made
