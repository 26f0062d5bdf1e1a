"""One's own model in, a model to study out: the only place that names TransformerLens's classes."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge.bridge import TransformerBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from hooks import Access, Prompts
from hooks.conformance import audit
from hooks.heads import LayerHeads


@dataclass(frozen=True)
class Origin:
    """Which weights these are and where they came from."""

    name: str
    source: str
    digest: str  # SHA-256 over every weight's name, type, shape and bytes
    tokenizer: str = ""  # SHA-256 of the tokenizer, where there is one
    bos: str = "none is prepended"  # or what the tokenizer itself puts before every prompt


observers: list[Callable[[Origin], None]] = []
"""Told of every model that is wrapped or loaded, so that a run's record can name its weights."""


class Model(TransformerBridge):
    """A TransformerBridge that also takes `Prompts`, and says where its weights came from.

    TransformerLens's own tools, `generate` and `run_with_cache` work on it as on any bridge.
    """

    origin: Origin
    kept_heads: tuple[LayerHeads, ...] | None = None  # of each layer, where some were removed
    if TYPE_CHECKING:  # found by TransformerBridge at run time
        blocks: Any
        ln_final: Any
        unembed: Any

    def forward(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """The logits, (batch, pos, vocab). Prompts bring their mask with them."""
        if isinstance(input, Prompts):
            prompts = input.to(next(self.original_model.parameters()).device)
            kwargs.setdefault("attention_mask", prompts.mask)
            input = prompts.tokens
        if isinstance(input, Tensor) and not input.is_floating_point():
            self._check_tokens(input)
        return super().forward(input, *args, **kwargs)

    def to_tokens(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """As a bridge does it; but a text that would start with two BOS tokens is refused."""
        bos = getattr(self.tokenizer, "bos_token", None)
        asked = (*args, kwargs.get("prepend_bos"))[0]
        prepends = self.cfg.default_prepend_bos if asked is None else asked
        for text in [input] if isinstance(input, str) else input:
            if bos and prepends and text.startswith(bos):
                raise ValueError(
                    f"{text[:60]!r} would start with two {bos!r}: leave it out of the text, "
                    "or say prepend_bos=False"
                )
        return super().to_tokens(input, *args, **kwargs)

    def enable_compatibility_mode(self, *args: Any, **kwargs: Any) -> None:
        """Refused: it folds and recentres the weights, so digest and logits would be others'."""
        raise ValueError(
            "a model of the workbench keeps its raw weights, so that its logits are the model's "
            "own; for compatibility mode, boot a TransformerBridge of your own"
        )

    @property
    def access(self) -> Access:
        """Which sites can be read and written, found out by running the model once."""
        if self._access is None:
            self._access = audit(self)
        return self._access

    _access: Access | None = None

    def _check_tokens(self, tokens: Tensor) -> None:
        """Ids the model does not know would be read from somewhere, or crash far from here."""
        limit = self.cfg.d_vocab
        wrong = (tokens < 0) | (tokens >= limit)
        if bool(wrong.any()):
            found = int(tokens[wrong][0])
            raise ValueError(
                f"token id {found} is not one of this model's: they are 0 to {limit - 1}"
            )
        if tokens.shape[-1] > self.cfg.n_ctx:
            raise ValueError(
                f"the prompts have {tokens.shape[-1]} tokens, this model takes {self.cfg.n_ctx}"
            )


_TAKEN = "expected a Hugging Face language model or a TransformerBridge"


def wrap(
    model: nn.Module,
    tokenizer: Any = None,
    *,
    name: str = "in memory",
    source: str = "in memory",
    build: Callable[[Any], TransformerBridge] | None = None,
) -> Model:
    """A model you already hold, ready to be studied: eval mode, gradients off, eager attention.

    Takes a Hugging Face language model (on any device, in any precision, fine-tuned, adapters
    merged) or a TransformerBridge already booted. The model itself is wrapped, not a copy: its
    attention is switched to eager and its submodules are replaced, so save it before. `build`
    puts a bridge around models whose layers TransformerLens does not know.
    """
    if isinstance(model, Model) and tokenizer is None:
        return model
    if not isinstance(model, nn.Module):
        raise TypeError(f"cannot wrap {model!r}: {_TAKEN}; models.load takes names and files")
    bridge = model if isinstance(model, TransformerBridge) else None
    inner = model if bridge is None else bridge.original_model
    weights = digest(inner)  # before wrapping, which renames them
    inner.eval().requires_grad_(False)
    if bridge is None:
        bridge = (build or _bridge)(inner)
    elif getattr(bridge, "compatibility_mode", False):
        raise ValueError(
            "this bridge is in compatibility mode, which folds and recentres its weights: "
            "boot it again and wrap it without enable_compatibility_mode()"
        )
    elif tokenizer is None:
        tokenizer = bridge.tokenizer
    bridge.eval().requires_grad_(False)
    bridge.__class__ = Model  # the same object, so its hooks and weights stay what they are
    assert isinstance(bridge, Model)
    _hold(bridge, tokenizer)
    bos = (
        f"{tokenizer.bos_token!r} by the tokenizer"
        if bridge.cfg.default_prepend_bos
        else Origin.bos
    )
    bridge.origin = Origin(name, source, weights, _digest_of_tokenizer(tokenizer), bos)
    for observer in observers:
        observer(bridge.origin)
    return bridge


def digest(model: nn.Module) -> str:
    """SHA-256 over every weight: name, type, shape and bytes. Tied weights count once."""
    by_place: dict[tuple[int, tuple[int, ...], torch.dtype], tuple[str, Tensor]] = {}
    for name, weight in sorted(model.state_dict().items()):
        by_place.setdefault((weight.data_ptr(), tuple(weight.shape), weight.dtype), (name, weight))
    with ThreadPoolExecutor(2) as pool:
        lines = list(pool.map(_digest_of, by_place.values()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest_of(named: tuple[str, Tensor]) -> str:
    name, weight = named
    plain = weight.detach().cpu().contiguous().flatten()
    content: Any = plain.view(torch.uint8).numpy() if plain.numel() else b""
    return f"{name} {weight.dtype} {tuple(weight.shape)} {hashlib.sha256(content).hexdigest()}"


def _digest_of_tokenizer(tokenizer: Any) -> str:
    """SHA-256 of all that a tokenizer does; of its vocabulary, where it cannot be written out."""
    if tokenizer is None:
        return ""
    fast: Any = getattr(tokenizer, "backend_tokenizer", None)
    text = fast.to_str() if hasattr(fast, "to_str") else str(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _bridge(model: Any) -> TransformerBridge:
    config = getattr(model, "config", None)
    if config is None:
        raise TypeError(f"cannot wrap a {type(model).__name__}: {_TAKEN}")
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    try:
        with torch.random.fork_rng(devices=[]):  # splitting q, k and v draws weights to discard
            return build_bridge_from_module(model, type(model).__name__, hf_config=config)
    except ValueError as error:
        raise ValueError(
            f"TransformerLens has no bridge for {type(model).__name__}: {error}. "
            "It takes language models with their head, such as LlamaForCausalLM"
        ) from error


def _hold(bridge: Model, tokenizer: Any) -> None:
    """Give the bridge our tokenizer as it is: TransformerLens would read it anew from a hub."""
    bridge.tokenizer = tokenizer
    prepends = False
    if tokenizer is not None:
        ids = list(tokenizer("a")["input_ids"])
        bos = tokenizer.bos_token_id
        prepends = bos is not None and bool(ids) and ids[0] == bos
        bridge.cfg.tokenizer_appends_eos = bool(ids) and ids[-1] == tokenizer.eos_token_id
    bridge.cfg.tokenizer_prepends_bos = prepends
    bridge.cfg.default_prepend_bos = prepends
