"""Small random twins of the architectures we promise to understand, each with its reference.

A twin has every mechanism of its architecture (grouped queries, windows, post-norms, parallel
blocks) in two or three layers, and weights that mean nothing. The reference is the same weights
in the library the architecture comes from, before TransformerLens wrapped them.
"""

import copy
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.model_bridge.sources.native import NativeModel

import hooks
from hooks.conformance import Check, Conformance, check_model
from hooks.conformance.verdicts import GROUPS
from workbench.models import cache
from workbench.models.bridge import Model, wrap
from workbench.models.tiny import fill

_VOCABULARY = 67
_ROOM = 64  # tokens
_LLAMA_LIKE = {
    "vocab_size": _VOCABULARY, "max_position_embeddings": _ROOM, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_WITHOUT_GROUPS = {**_LLAMA_LIKE, "num_key_value_heads": 4}
_WINDOWED = {"sliding_window": 4, "head_dim": 8}  # shorter than the prompts of check_model
_BERT = {
    "vocab_size": _VOCABULARY, "max_position_embeddings": _ROOM, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
}  # fmt: skip
_NATIVE = {
    "d_model": 32, "d_head": 8, "n_heads": 4, "n_layers": 2, "n_ctx": _ROOM,
    "d_vocab": _VOCABULARY, "act_fn": "gelu",
}  # fmt: skip


def _hugging_face(name: str, config: str, **fields: Any) -> nn.Module:
    return getattr(transformers, name)(getattr(transformers, config)(**fields))


def _native(**fields: Any) -> nn.Module:
    return NativeModel(TransformerBridgeConfig(**_NATIVE, **fields))


def _bridge(model: NativeModel) -> nn.Module:
    return build_bridge_from_module(model, "TransformerLensNative", tl_config=model.cfg)


_MAKERS: Mapping[str, Callable[[], nn.Module]] = {
    "GPT-2": partial(
        _hugging_face, "GPT2LMHeadModel", "GPT2Config", vocab_size=_VOCABULARY,
        n_positions=_ROOM, n_embd=32, n_layer=2, n_head=4, n_inner=48,
    ),
    "Llama": partial(_hugging_face, "LlamaForCausalLM", "LlamaConfig", **_LLAMA_LIKE),
    "Mistral": partial(
        _hugging_face, "MistralForCausalLM", "MistralConfig", **_LLAMA_LIKE, **_WINDOWED
    ),
    "Qwen 2": partial(_hugging_face, "Qwen2ForCausalLM", "Qwen2Config", **_LLAMA_LIKE),
    "Qwen 3": partial(
        _hugging_face, "Qwen3ForCausalLM", "Qwen3Config", **_LLAMA_LIKE, head_dim=16
    ),
    "Gemma 2": partial(
        _hugging_face, "Gemma2ForCausalLM", "Gemma2Config", **_LLAMA_LIKE, **_WINDOWED,
        layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8,
    ),
    "Gemma 3": partial(
        _hugging_face, "Gemma3ForCausalLM", "Gemma3TextConfig",
        **{**_LLAMA_LIKE, "num_hidden_layers": 3}, **_WINDOWED,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        query_pre_attn_scalar=8,
    ),
    "Phi": partial(_hugging_face, "PhiForCausalLM", "PhiConfig", **_WITHOUT_GROUPS),
    "Phi-3": partial(_hugging_face, "Phi3ForCausalLM", "Phi3Config", **_LLAMA_LIKE),
    "GPT-NeoX": partial(
        _hugging_face, "GPTNeoXForCausalLM", "GPTNeoXConfig", **_BERT, use_parallel_residual=True
    ),
    "GPT-NeoX, sequential": partial(
        _hugging_face, "GPTNeoXForCausalLM", "GPTNeoXConfig", **_BERT, use_parallel_residual=False
    ),
    "OPT": partial(
        _hugging_face, "OPTForCausalLM", "OPTConfig", vocab_size=_VOCABULARY,
        max_position_embeddings=_ROOM, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48,
        num_hidden_layers=2, num_attention_heads=4,
    ),
    "BERT": partial(_hugging_face, "BertForMaskedLM", "BertConfig", **_BERT),
    "native": partial(_native, normalization_type="LN"),
    "native, attention only": partial(_native, normalization_type=None, attn_only=True),
}  # fmt: skip

ARCHITECTURES: tuple[str, ...] = tuple(_MAKERS)
"""The architectures that have a twin here."""


def make(architecture: str, *, seed: int = 0) -> tuple[Model, nn.Module]:
    """A small model of `architecture` with random weights, and the same weights un-wrapped."""
    if architecture not in _MAKERS:
        raise ValueError(f"no twin of {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    with torch.random.fork_rng(devices=[]):  # the libraries' own initialisation is overwritten
        model = _MAKERS[architecture]()
    fill(model, torch.Generator().manual_seed(seed))
    model.eval().requires_grad_(False)
    if isinstance(model, transformers.PreTrainedModel):
        model.set_attn_implementation("eager")
    reference = copy.deepcopy(model)
    bridge = _bridge(model) if isinstance(model, NativeModel) else model
    return wrap(bridge, name=architecture, source=f"random weights, seed {seed}"), reference


def verdicts(architectures: Sequence[str] = ARCHITECTURES) -> dict[str, Conformance]:
    """What `check_model` says about each architecture's twin, from the cache where it is known.

    A verdict is known for these versions of the libraries and of our own code only.
    """
    return {architecture: _verdict(architecture) for architecture in architectures}


def table(found: Mapping[str, Conformance]) -> str:
    """Architectures x checks as a Markdown table, and beneath it what is refused and why."""
    groups = [group for group in GROUPS if group != "streams"]
    lines = [
        "| architecture | " + " | ".join(groups) + " |",
        "|---" * (len(groups) + 1) + "|",
    ]
    for architecture, conformance in found.items():
        cells = [_cell(conformance, group) for group in groups]
        lines.append(f"| {architecture} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "yes: passes; part: passes, and what this architecture lacks is refused by name:",
        "",
    ]
    return "\n".join([*lines, *_reasons(found)])


def _cell(conformance: Conformance, group: str) -> str:
    verdict = conformance.verdict(group)
    if verdict == "refused" and any(c.verdict == "pass" for c in conformance.of(group)):
        return "part"
    return {"pass": "yes", "refused": "refused", "fail": "FAIL"}[verdict]


def _reasons(found: Mapping[str, Conformance]) -> Iterator[str]:
    """One line for each architecture: the streams it lacks, gathered by why."""
    for architecture, conformance in found.items():
        by_reason: dict[str, list[str]] = {}
        for check in conformance.of("streams"):
            if check.verdict == "refused":
                by_reason.setdefault(check.expected, []).append(check.name)
        listed = "; ".join(f"{', '.join(names)} {why}" for why, names in by_reason.items())
        yield f"- {architecture}: {listed or 'lacks nothing'}"


def _verdict(architecture: str) -> Conformance:
    def prepare(folder: Path) -> None:
        model, reference = make(architecture)
        found = dataclasses.asdict(check_model(model, reference))
        (folder / "verdict.json").write_text(json.dumps(found, indent=1))

    name = re.sub(r"\W+", "-", architecture).lower()
    folder = cache.entry(f"conformance/{name}-{_version(architecture)}", prepare)
    kept = json.loads((folder / "verdict.json").read_text())
    checks = tuple(Check(**check) for check in kept.pop("checks"))
    return Conformance(**kept, checks=checks)


def _version(architecture: str) -> str:
    """Changes with whatever a verdict depends on: the libraries, and the code that was checked."""
    libraries = ("torch", "transformers", "transformer-lens")
    parts = [architecture, *(f"{name} {metadata.version(name)}" for name in libraries)]
    ours = [*Path(hooks.__file__).parent.rglob("*.py")]
    ours += [Path(__file__).with_name(f"{name}.py") for name in ("twins", "tiny", "bridge")]
    parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(ours)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
