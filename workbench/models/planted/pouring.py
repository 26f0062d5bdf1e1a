"""A blueprint in the shape of an architecture: TransformerLens's native one, GPT-2's or Llama's."""

from math import cos, sin, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import NativeModel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from workbench.models.planted.wiring import HARD, Blueprint, Space, Wires, idle_mlp

_EPSILON, _GAIN = 2.0**26, 2.0**13
"""A norm whose epsilon swamps what it normalises, times the root of that, does not normalise."""

_BASE, _TURNING, _ROTARY, _LOUD = 1e38, 3, 9, 8.0
"""A base of rotary positions with which only the first few pairs of coordinates turn at all: how
many are used, how many are kept free of all else, and how loud they must be to tell neighbours."""


@torch.no_grad()
def native(blueprint: Blueprint) -> nn.Module:
    """No norm but the final one, where the blueprint has it; no MLPs where it has none."""
    first, mlps = blueprint.layers[0], blueprint.mlps
    config = TransformerBridgeConfig(
        n_layers=len(blueprint.layers), n_heads=len(first), d_head=first[0].q.shape[1],
        n_key_value_heads=len(first) // blueprint.sharing if blueprint.sharing > 1 else None,
        d_model=blueprint.space.width, d_mlp=mlps[0].bias.shape[0] if mlps else None,
        d_vocab=len(blueprint.words), n_ctx=blueprint.position.shape[0], act_fn="relu",
        attn_only=not mlps, normalization_type=None, final_rms=blueprint.final_norm == "rms",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # its own initialisation is overwritten
        model: Any = NativeModel(config)
    state = {name: torch.zeros_like(weight) for name, weight in model.state_dict().items()}
    state |= {"tok_embed.weight": blueprint.embed, "pos.weight": blueprint.position}
    state["head.weight"] = blueprint.unembed.T
    for layer, heads in enumerate(blueprint.layers):
        for name, weight in _joined(heads, blueprint.sharing).items():
            state[f"layers.{layer}.attn.{name}.weight"] = weight if name == "o" else weight.T
    for layer, mlp in enumerate(mlps):
        here = f"layers.{layer}.mlp"
        state |= {f"{here}.fc_in.weight": mlp.reads.T, f"{here}.fc_in.bias": mlp.bias}
        state[f"{here}.fc_out.weight"] = mlp.writes
    if blueprint.final_norm == "rms":
        state["ln_out.weight"] = torch.ones(blueprint.space.width)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def gpt2(blueprint: Blueprint, generator: torch.Generator) -> nn.Module:
    """GPT-2's modules, with LayerNorms that change nothing.

    All that is written sums to zero by the last coordinate, so that nothing is centred; the one
    before it is empty, and there all that is read sums to zero, so that the mean's rounding is
    not read either: attention that is all or nothing would show it. A blueprint without MLPs
    gets irrelevant ones.
    """
    first = blueprint.layers[0]
    width = len(first) * first[0].q.shape[1]
    assert width >= blueprint.space.width + 2, "two coordinates are needed beside the named ones"
    mlps = blueprint.mlps or tuple(idle_mlp(blueprint.space, generator) for _ in blueprint.layers)
    config = GPT2Config(
        vocab_size=len(blueprint.words), n_positions=blueprint.position.shape[0], n_embd=width,
        n_layer=len(blueprint.layers), n_head=len(first), n_inner=mlps[0].bias.shape[0],
        activation_function="relu", layer_norm_epsilon=_EPSILON, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=None, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model: Any = GPT2LMHeadModel(config)
    model.set_attn_implementation("eager")
    state = {name: torch.zeros_like(weight) for name, weight in model.state_dict().items()}
    state["transformer.wte.weight"] = _balanced(blueprint.embed, width)
    state["transformer.wpe.weight"] = _balanced(blueprint.position, width)
    state["lm_head.weight"] = _deaf(blueprint.unembed.T, width)
    for layer, (heads, mlp) in enumerate(zip(blueprint.layers, mlps, strict=True)):
        here, joined = f"transformer.h.{layer}", _joined(heads, 1)
        qkv = torch.cat([_deaf(joined[name].T, width).T for name in "qkv"], dim=1)
        state[f"{here}.attn.c_attn.weight"] = qkv
        state[f"{here}.attn.c_proj.weight"] = _balanced(joined["o"].T, width)
        state[f"{here}.mlp.c_fc.weight"] = _deaf(mlp.reads.T, width).T
        state[f"{here}.mlp.c_fc.bias"] = mlp.bias
        state[f"{here}.mlp.c_proj.weight"] = _balanced(mlp.writes.T, width)
    for name in state:
        if ".ln_" in name and name.endswith("weight"):
            state[name] = torch.full((width,), _GAIN)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def llama(blueprint: Blueprint, generator: torch.Generator) -> nn.Module:
    """Llama's modules, with RMS norms that change nothing, and positions in the rotary pairs.

    Heads that attend so many tokens back do it in the pairs that turn, all others in those that
    stand still. A gated neuron's gate is the blueprint's neuron, and what it gates is one.
    """
    first, space = blueprint.layers[0], blueprint.space
    wide = 2 * (_ROTARY + first[0].q.shape[1] // 2)
    mlps = blueprint.mlps or tuple(idle_mlp(space, generator) for _ in blueprint.layers)
    config = LlamaConfig(
        vocab_size=len(blueprint.words), max_position_embeddings=blueprint.position.shape[0],
        hidden_size=space.width, num_hidden_layers=len(blueprint.layers), head_dim=wide,
        num_attention_heads=len(first), num_key_value_heads=len(first) // blueprint.sharing,
        intermediate_size=mlps[0].bias.shape[0], hidden_act="relu", rms_norm_eps=_EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": _BASE},
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=None, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model: Any = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")
    state = {name: torch.full_like(weight, _GAIN) for name, weight in model.state_dict().items()}
    state["model.embed_tokens.weight"] = blueprint.embed
    state["lm_head.weight"] = blueprint.unembed.T
    one = space.columns(1, ("one", 0, 1.0))
    for layer, (heads, mlp) in enumerate(zip(blueprint.layers, mlps, strict=True)):
        here, turning = f"model.layers.{layer}", _turning(space, heads, blueprint.sharing, wide)
        for name, weight in _joined(turning, blueprint.sharing).items():
            where = f"{here}.self_attn.{name}_proj.weight"
            state[where] = weight if name == "o" else weight.T
        state[f"{here}.mlp.gate_proj.weight"] = (mlp.reads + one * mlp.bias).T
        state[f"{here}.mlp.up_proj.weight"] = one.T.expand(mlp.bias.shape[0], -1)
        state[f"{here}.mlp.down_proj.weight"] = mlp.writes
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _turning(space: Space, heads: tuple[Wires, ...], sharing: int, wide: int) -> tuple[Wires, ...]:
    """The heads in more columns, those that attend so many tokens back by rotary positions."""
    found = []
    for at, head in enumerate(heads):
        mates = heads[at // sharing * sharing :][:sharing]
        q, k, v, o = (_spread(part, wide) for part in (head.q, head.k, head.v, head.o))
        q = q * sqrt(wide / head.q.shape[1])  # the model will divide by the root of `wide`
        if head.back is not None:
            q = _facing(space, wide, -head.back) * (_LOUD * HARD * sqrt(wide))
        if any(mate.back is not None for mate in mates):
            k = _facing(space, wide, 0)
        found.append(Wires(q, k, v, o))
    return tuple(found)


def _spread(part: Tensor, wide: int) -> Tensor:
    """Columns where no rotary pair turns: the last ones of each half."""
    return torch.cat(
        [nn.functional.pad(half, (wide // 2 - half.shape[1], 0)) for half in part.chunk(2, dim=1)],
        dim=1,
    )


def _facing(space: Space, wide: int, steps: int) -> Tensor:
    """For every token the same: the pairs that turn, as they stand after so many steps."""
    found = torch.zeros(space.width, wide)
    for pair in range(_TURNING):
        angle = steps * _BASE ** (-2 * pair / wide)
        found[space.part("one"), pair] = cos(angle)
        found[space.part("one"), wide // 2 + pair] = sin(angle)
    return found


def _joined(heads: tuple[Wires, ...], sharing: int) -> dict[str, Tensor]:
    """The heads' matrices side by side, keys and values once for all heads that share them."""
    for at, head in enumerate(heads):
        first = heads[at // sharing * sharing]
        assert head.k.equal(first.k) and head.v.equal(first.v), "heads that share must agree"
    once = heads[::sharing]
    return {
        "q": torch.cat([head.q for head in heads], dim=1),
        "k": torch.cat([head.k for head in once], dim=1),
        "v": torch.cat([head.v for head in once], dim=1),
        "o": torch.cat([head.o for head in heads], dim=1),
    }


def _balanced(rows: Tensor, width: int) -> Tensor:
    """What is written, in more coordinates, the last of which makes every row sum to zero."""
    wide = nn.functional.pad(rows, (0, width - rows.shape[-1]))
    wide[:, -1] = -wide.sum(dim=-1)
    return wide


def _deaf(rows: Tensor, width: int) -> Tensor:
    """What is read, in more coordinates: deaf to what all coordinates have in common."""
    wide = nn.functional.pad(rows, (0, width - rows.shape[-1]))
    wide[:, -2] = -wide.sum(dim=-1)
    return wide
