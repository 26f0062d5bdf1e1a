"""What is loaded is the model that was named, ready to be studied."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close
from transformer_lens import TransformerBridge, TransformerBridgeConfig
from transformer_lens.model_bridge.sources import native
from transformers import MptConfig, MptForCausalLM

from hooks import Prompts, Site, capture
from workbench import models
from workbench.models import tiny as tiny_models
from workbench.models.bridge import digest

TOKENS = torch.arange(5, 13).reshape(2, 4)


def test_the_small_models_are_the_same_bits_every_time(small):
    again = models.load(small.origin.name)
    assert again.origin == small.origin
    assert_close(again(TOKENS), small(TOKENS), rtol=0, atol=0)


def test_loading_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    models.load("tiny")
    models.load("tiny-gqa")
    assert torch.get_rng_state().equal(before)


def test_a_model_is_ready_to_be_studied(small):
    assert isinstance(small, TransformerBridge)
    assert not any(module.training for module in small.modules())
    assert not any(weight.requires_grad for weight in small.parameters())
    assert small.original_model.config._attn_implementation == "eager"


def test_prompts_bring_their_mask(tiny_gqa):
    prompts = Prompts.padded([[5, 6, 7, 8], [9, 10]])
    expected = tiny_gqa(prompts.tokens, attention_mask=prompts.mask)
    assert_close(tiny_gqa(prompts), expected, rtol=0, atol=0)


def test_the_tokenizer_has_a_digest_too(tiny):
    other = tiny_models.tokenizer()
    other.add_tokens(["NEWWORD"])
    assert len(tiny.origin.tokenizer) == 64
    assert models.wrap(tiny_models._gpt2(50), other).origin.tokenizer != tiny.origin.tokenizer
    assert tiny.origin.bos == "none is prepended"


def test_the_digest_changes_with_one_weight_and_not_with_the_object(small_llama):
    model = small_llama()
    before = digest(model)
    assert digest(model) == before
    model.lm_head.weight.data[0, 0] += 1e-6
    assert digest(model) != before


def test_the_digest_is_that_of_the_model_before_it_was_wrapped(small_llama):
    model = small_llama()
    expected = digest(model)
    assert models.wrap(model, tiny_models.tokenizer()).origin.digest == expected


def test_a_model_in_memory_keeps_its_numbers(no_network, small_llama):
    model = small_llama()
    model.set_attn_implementation("eager")
    expected = model(TOKENS).logits
    assert_close(models.wrap(model)(TOKENS), expected, rtol=0, atol=0)


def test_half_precision_stays_half_precision(small_llama):
    model = models.wrap(small_llama().to(torch.bfloat16), tiny_models.tokenizer())
    seen = capture(model, TOKENS, [Site("z", 1)], logits="last")
    assert seen[Site("z", 1)].dtype == seen.logits.dtype == torch.bfloat16


def test_a_bridge_already_booted_is_taken_as_it_is():
    config = TransformerBridgeConfig(
        n_layers=1, d_model=16, n_ctx=8, n_heads=2, d_head=8, d_mlp=32, d_vocab=20,
        act_fn="gelu", seed=0,
    )  # fmt: skip
    bridge = native.boot(config).eval()
    expected = bridge(TOKENS)
    model = models.wrap(bridge)
    assert model is bridge
    assert models.wrap(model).origin == model.origin
    assert_close(model(TOKENS), expected, rtol=0, atol=0)
    assert capture(model, TOKENS, [Site("z", 0)])[Site("z", 0)].shape == (2, 4, 2, 8)


def test_a_folder_of_hugging_face_asks_no_hub(tmp_path, no_network, small_llama):
    tokenizer = tiny_models.tokenizer()
    tokenizer.add_tokens(["NEWWORD"])
    model = small_llama(vocab_size=len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = models.load(str(tmp_path))
    assert loaded.origin.digest == digest(model)
    assert loaded.tokenizer.decode(loaded.tokenizer("NEWWORD")["input_ids"]) == "NEWWORD"
    model.set_attn_implementation("eager")
    assert_close(loaded(TOKENS), model(TOKENS).logits, rtol=0, atol=0)
    assert loaded.generate(TOKENS[:1], max_new_tokens=2, verbose=False).shape == (1, 6)


def test_transformer_lens_tokenises_with_our_tokenizer(tiny, no_network):
    text = "When Mary and John went to the store"
    expected = models.prompts(tiny, [text]).tokens
    assert tiny.to_tokens(text).equal(expected)
    assert len(tiny.tokenizer) == tiny.cfg.d_vocab


TOYS = {
    "with LayerNorm": {"normalization_type": "LN", "d_mlp": 32, "act_fn": "gelu"},
    "attention only, without norm": {"normalization_type": None, "attn_only": True},
    "bidirectional": {
        "normalization_type": "LN", "d_mlp": 32, "act_fn": "relu", "attention_dir": "bidirectional",
    },
    "with few outputs": {
        "normalization_type": None, "d_mlp": 32, "act_fn": "relu", "d_vocab_out": 3,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_ones_own_toy_in_transformer_lens_format_computes_what_it_did(tmp_path, kind, suffix):
    fields = {"n_layers": 2, "d_model": 16, "n_ctx": 8, "n_heads": 2, "d_head": 8, "d_vocab": 20}
    fields |= TOYS[kind]
    bridge = native.boot(TransformerBridgeConfig(**fields, seed=3)).eval()
    state = {name: weight.clone() for name, weight in bridge.state_dict().items()}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    path = tmp_path / f"toy{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    for name in (tmp_path, path):
        assert_close(models.load(str(name))(TOKENS), bridge(TOKENS), rtol=0, atol=0)


def test_a_checkpoint_with_the_old_names_is_converted(tmp_path):
    """Computed by hand: one attention-only layer without norm, straight from its matrices."""
    d_model, d_head, vocab = 6, 3, 10
    rng = torch.Generator().manual_seed(0)
    shapes = {
        "embed.W_E": (vocab, d_model), "pos_embed.W_pos": (5, d_model),
        "blocks.0.attn.W_Q": (2, d_model, d_head), "blocks.0.attn.W_K": (2, d_model, d_head),
        "blocks.0.attn.W_V": (2, d_model, d_head), "blocks.0.attn.W_O": (2, d_head, d_model),
        "blocks.0.attn.b_Q": (2, d_head), "blocks.0.attn.b_K": (2, d_head),
        "blocks.0.attn.b_V": (2, d_head), "blocks.0.attn.b_O": (d_model,),
        "unembed.W_U": (d_model, vocab),
    }  # fmt: skip
    state = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    config = {"n_layers": 1, "d_model": d_model, "n_ctx": 5, "n_heads": 2, "d_head": d_head,
              "d_vocab": vocab, "attn_only": True, "normalization_type": None}  # fmt: skip
    torch.save(state, tmp_path / "model.pth")
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokens = torch.tensor([[1, 4, 2]])
    resid = state["embed.W_E"][tokens] + state["pos_embed.W_pos"][:3]
    q, k, v = (
        torch.einsum("bpm,hmd->bhpd", resid, state[f"blocks.0.attn.W_{n}"])
        + state[f"blocks.0.attn.b_{n}"][:, None]
        for n in "QKV"
    )
    scores = (q @ k.transpose(-1, -2) / d_head**0.5).masked_fill(
        torch.ones(3, 3).triu(1).bool(), -torch.inf
    )
    out = torch.einsum("bhpd,hdm->bpm", scores.softmax(-1) @ v, state["blocks.0.attn.W_O"])
    expected = (resid + out + state["blocks.0.attn.b_O"]) @ state["unembed.W_U"]
    found = models.load(str(tmp_path))(tokens)
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_folder_of_hugging_face_may_count_its_n_layers(tmp_path):
    config = MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=50, max_seq_len=16)
    with torch.random.fork_rng():
        MptForCausalLM(config).save_pretrained(tmp_path)
    assert models.load(str(tmp_path)).cfg.n_layers == 2


def test_every_load_is_told_to_the_observers():
    from workbench.models.bridge import observers

    seen = []
    observers.append(seen.append)
    try:
        model = models.load("tiny")
    finally:
        observers.remove(seen.append)
    assert seen == [model.origin]


def test_a_model_in_memory_is_told_to_the_observers_too(small_llama):
    from workbench.models.bridge import observers

    seen = []
    observers.append(seen.append)
    try:
        model = models.wrap(small_llama(), name="mine")
    finally:
        observers.remove(seen.append)
    assert seen == [model.origin]
