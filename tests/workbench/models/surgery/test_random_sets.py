"""Heads at random, whole layers and whole groups, in models wide enough for rounding to differ."""

from functools import cache

import pytest
import torch
import transformers

from hooks import Site, edits, heads, intervening
from workbench import models
from workbench.models import surgery

FIVE = ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"]
_LLAMA = {
    "vocab_size": 211, "max_position_embeddings": 64, "hidden_size": 96, "num_hidden_layers": 5,
    "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 128, "head_dim": 96,
}  # fmt: skip
_WIDE = {
    "GPT-2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=211, n_positions=64, n_embd=768, n_layer=5, n_head=8, n_inner=128
        )
    ),
    "Llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_LLAMA)),
    "GPT-NeoX": lambda: transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=211, max_position_embeddings=64, hidden_size=768, num_hidden_layers=5,
            num_attention_heads=8, intermediate_size=128, use_parallel_residual=True,
        )
    ),
    "Qwen 3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**_LLAMA)),
    "Gemma 3": lambda: transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(
            **_LLAMA, sliding_window=8, query_pre_attn_scalar=96,
            layer_types=["sliding_attention"] * 4 + ["full_attention"],
        )
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def wide():
    """Models of five layers with eight heads, in either precision.

    Their z are 768 wide: of less, matrix products add up in the same order with zeros left out.
    """

    @cache
    def made(architecture: str, dtype: torch.dtype):
        with torch.random.fork_rng(devices=[]):
            model = _WIDE[architecture]()
        generator = torch.Generator().manual_seed(0)
        for weight in model.parameters():
            if weight.ndim == 2:  # as large as leaves activations as they are: none is amplified
                weight.data.normal_(std=weight.numel() ** -0.25, generator=generator)
        return models.wrap(model.to(dtype), name=f"wide {architecture}")

    return made


@pytest.mark.parametrize("architecture", FIVE)
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_random_sets_of_a_wider_model_are_cut_as_they_are_zeroed(
    wide, architecture, seed, random_sets, relative
):
    model = wide(architecture, torch.float32)
    shared = model.cfg.n_heads // heads.count(model, "k")
    whole, group = (seed + 1) % 5, (seed + 3) % 5
    kept = random_sets(5, 8, seed=seed, whole=(whole,), groups=((group, range(2, 2 + shared)),))
    gone = [[head for head in range(8) if head not in there] for there in kept]
    zeroed = {Site("z", n): edits.zero(heads=some) for n, some in enumerate(gone) if some}
    tokens = torch.randint(3, 200, (2, 24), generator=torch.Generator().manual_seed(seed))
    for dtype, limit in ((torch.float32, 2e-5), (torch.float64, 1e-9)):
        model = wide(architecture, dtype)
        with intervening(model, zeroed):
            expected = model(tokens)
        error = relative(surgery.cut(model, kept)(tokens), expected)
        assert error <= limit
        assert relative(expected, model(tokens)) > 1e-2
