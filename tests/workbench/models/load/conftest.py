"""A small model, and no network."""

import socket

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.models import tiny as tiny_models


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def small_llama(**changed) -> LlamaForCausalLM:
    fields = {
        "vocab_size": len(tiny_models.tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
    }
    with torch.random.fork_rng():
        return LlamaForCausalLM(LlamaConfig(**(fields | changed))).eval()


@pytest.fixture(scope="session", name="small_llama")
def _small_llama():
    return small_llama
