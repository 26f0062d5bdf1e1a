"""Two-layer models with seeded random weights: no network, milliseconds, every task runs on them.

What they compute is noise. They show that code works, not how language models do.
"""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from workbench import words
from workbench.models.bridge import Model, wrap

_SPREAD = 0.25  # large enough that ablations and patches move the logits visibly


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: every word of `workbench.words`, with and without a space before it.

    Digits stand alone, a space belongs to the word after it, nothing is prepended.
    """
    spelled = [*words.all_words(), *".,:;?!'\"-", *"0123456789"]
    vocabulary = ["<unk>", "<pad>", "<end>", " ", "\n"]
    vocabulary += [form for word in spelled for form in (word, f" {word}")]
    numbered = {word: index for index, word in enumerate(dict.fromkeys(vocabulary))}
    inner = Tokenizer(WordLevel(numbered, unk_token="<unk>"))
    split = Regex(r" ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]|\s")
    inner.pre_tokenizer = pre_tokenizers.Split(split, "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="<end>"
    )


def load(name: str, *, device: str, dtype: torch.dtype) -> Model:
    """Two layers of seeded noise; "tiny" shaped like GPT-2, "tiny-gqa" like Llama (GQA)."""
    ours = tokenizer()
    with torch.random.fork_rng(devices=[]):  # transformers draws weights, which are overwritten
        model: Any = _gpt2(len(ours)) if name == "tiny" else _llama(len(ours))
    fill(model, torch.Generator().manual_seed(0))
    return wrap(model.to(device, dtype), ours, name=name, source="random weights, seed 0")


def _gpt2(vocabulary: int) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary, n_positions=256, n_embd=32, n_layer=2, n_head=4, n_inner=64,
            bos_token_id=None, eos_token_id=2, pad_token_id=1,
        )
    )  # fmt: skip


def _llama(vocabulary: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, max_position_embeddings=256, hidden_size=32,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=64, bos_token_id=None, eos_token_id=2, pad_token_id=1,
            tie_word_embeddings=False,
        )
    )  # fmt: skip


@torch.no_grad()
def fill(model: Any, generator: torch.Generator) -> None:
    """Normal weights from a generator of our own, so that no global random state is touched.

    Scales of norms stay around what they start at; nothing else depends on how it was started.
    """
    for name, weight in model.named_parameters():
        spread = _SPREAD if weight.ndim > 1 else 0.1
        values = torch.randn(weight.shape, generator=generator) * spread
        scale = weight.ndim == 1 and not name.endswith("bias")
        weight.copy_(weight + values if scale else values)
