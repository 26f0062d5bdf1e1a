"""Induction that was learned: two layers of attention, trained here from a seed on repeats.

Every prompt is a segment of different words, said again and again. Its length is drawn anew for
each, because with a constant one the answer is found by its place, and no induction head forms.
With four heads a layer, some are silenced at random while the model learns: so none is needed
alone, whatever the seed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.model_bridge.sources.native import NativeModel
from transformers import LlamaConfig, LlamaForCausalLM

from workbench import statistics
from workbench.models import cache
from workbench.models.bridge import Model, digest, wrap
from workbench.models.planted import vocabulary
from workbench.models.planted.truth import Head, Known, Truth

CHANCE = log(len(vocabulary.ORDINARY))
"""The loss of a model that has no idea which word comes next, in nats: 3.69."""

_ROOM, _LENGTH, _BATCH = 48, 32, 32
_PERIOD = (6, 16)  # words in a segment
_RATE, _WARM, _COOL = 3e-3, 50, 0.6  # learning rate; steps of rise; fall after this share of them
_LEARNED = 0.1  # nats: a greater loss at the end means that the recipe failed


@dataclass(frozen=True)
class Recipe:
    """How one model is made.

    silenced   how often, in training, one head of a layer is silent for a prompt
    """

    heads: int
    steps: int
    silenced: float = 0.0
    shape: Literal["native", "llama"] = "native"


RECIPES: Mapping[str, Recipe] = {
    "induction-1": Recipe(1, 600),
    "induction-2": Recipe(2, 500),
    "induction-4": Recipe(4, 800, silenced=0.5),
    "induction-4-gqa": Recipe(4, 700, silenced=0.5, shape="llama"),
}


def load(recipe: str, seed: int, *, name: str, device: str, dtype: torch.dtype) -> Model:
    """The model, from the cache or trained now."""
    made = RECIPES[recipe]

    def prepare(folder: Path) -> None:
        model, loss = train(made, seed=seed, name=name)
        save_file(model.state_dict(), folder / "model.safetensors")
        kept = {"digest": digest(model), "loss": loss}
        (folder / "workbench.json").write_text(json.dumps(kept))

    folder = cache.entry(f"planted/{recipe}-{seed}-{_version()}", prepare)
    model = _untrained(made)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    kept, found = json.loads((folder / "workbench.json").read_text())["digest"], digest(model)
    if found != kept:
        raise OSError(
            f"the weights in {folder} are not those that were written there "
            f"({found[:12]} instead of {kept[:12]}): delete that folder, and it is made anew"
        )
    ready: Any = model.eval().requires_grad_(False).to(device, dtype)
    if made.shape == "native":
        ready = build_bridge_from_module(ready, "TransformerLensNative", tl_config=ready.cfg)
    words = vocabulary.tokenizer(vocabulary.ORDINARY)
    return wrap(ready, words, name=name, source=f"trained here, seed {seed}")


def train(recipe: Recipe, *, seed: int, name: str) -> tuple[nn.Module, float]:
    """A model trained from `seed`, and its loss on prompts that it was not trained on, in nats."""
    generator = statistics.derive(seed, "planted", "trained")
    model = _untrained(recipe)
    _initialise(model, generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(recipe.steps))
    with torch.enable_grad(), _silenced(model, recipe, generator):
        for _ in tqdm(range(recipe.steps), desc=f"training {name}", unit="step"):
            tokens, told = repeats(_BATCH, generator)
            optimizer.zero_grad()
            _loss(model, tokens, told).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        loss = _loss(model, *repeats(8 * _BATCH, generator)).item()
    if not loss < _LEARNED:
        raise RuntimeError(
            f"{name} did not learn to repeat ({loss:.2f} nats after {recipe.steps} steps, at most "
            f"{_LEARNED} is expected): take another seed"
        )
    return model, loss


def repeats(
    number: int, generator: torch.Generator
) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Prompts, and the positions whose word was said before, and so tells the next."""
    period = torch.randint(_PERIOD[0], _PERIOD[1] + 1, (number, 1), generator=generator)
    order = torch.rand(number, len(vocabulary.ORDINARY), generator=generator).argsort(dim=1)
    segment = order + len(vocabulary.SPECIAL)
    at = torch.arange(_LENGTH).expand(number, -1)
    start = torch.zeros(number, 1, dtype=torch.long)
    tokens = torch.cat([start, segment.gather(1, at % period)], dim=1)
    return tokens, torch.arange(_LENGTH + 1) > period


def truth(recipe: str, name: str) -> Truth:
    """What these models learn: the heads of the second layer do induction, alone or together."""
    made = RECIPES[recipe]
    first, second = (tuple((layer, head) for head in range(made.heads)) for layer in (0, 1))
    # Which heads of several in the first layer attend to the previous token is up to the seed.
    roles = {"previous token" if made.heads == 1 else "first layer": first, "induction": second}
    known = [_logprob((), -0.1, 0.0)]
    known += [_logprob(layer, -100.0, -CHANCE) for layer in (first, second)]
    if made.heads == 2:
        known += [_logprob((head,), -0.5 * CHANCE, 0.0) for head in second]
    if made.heads == 4:
        known += [_logprob((head,), -0.2, 0.0) for head in (*first, *second)]
    what = {1: "each is needed", 2: "they share the work", 4: "none is needed alone"}
    return Truth(
        name,
        f"induction trained here, heads in each layer: {made.heads}; {what[made.heads]}",
        "induction",
        roles,
        tuple(known),
    )


def _logprob(heads: tuple[Head, ...], low: float, high: float) -> Known:
    return Known(heads, "zero" if heads else "noising", low, high, "answer_logprob")


def _untrained(recipe: Recipe) -> Any:
    words = len(vocabulary.SPECIAL) + len(vocabulary.ORDINARY)
    with torch.random.fork_rng(devices=[]):  # what the libraries draw is overwritten
        if recipe.shape == "native":
            return NativeModel(
                TransformerBridgeConfig(
                    n_layers=2, d_model=64, n_heads=recipe.heads, d_head=64 // recipe.heads,
                    n_ctx=_ROOM, d_vocab=words, act_fn="relu", attn_only=True,
                    normalization_type=None,
                )
            )  # fmt: skip
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=words, max_position_embeddings=_ROOM, hidden_size=64,
                num_hidden_layers=2, num_attention_heads=recipe.heads,
                num_key_value_heads=recipe.heads // 2, intermediate_size=16,
                tie_word_embeddings=False, bos_token_id=0, eos_token_id=None, pad_token_id=1,
            )
        )  # fmt: skip


@torch.no_grad()
def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Matrices normal and small, biases zero, norms one: from a generator of our own."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
        else:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)


def _rate(steps: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        fall = max(0.0, (step / steps - _COOL) / (1 - _COOL))
        return min(1.0, (step + 1) / _WARM) * (1 - 0.95 * fall)

    return factor


def _loss(
    model: nn.Module, tokens: Int[Tensor, "batch pos"], told: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Minus the log-probability of the next word, where it can be known."""
    logits = model(tokens)
    logits = getattr(logits, "logits", logits)[:, :-1]
    here = told[:, :-1]
    return nn.functional.cross_entropy(logits[here], tokens[:, 1:][here])


@contextmanager
def _silenced(model: Any, recipe: Recipe, generator: torch.Generator) -> Iterator[None]:
    """While open, one head of each layer is silent, for a share of the prompts."""
    layers = model.layers if recipe.shape == "native" else model.model.layers
    outputs = [
        layer.attn.o if recipe.shape == "native" else layer.self_attn.o_proj for layer in layers
    ]

    def silence(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        (z,) = given
        batch, pos, width = z.shape
        chosen = torch.randint(recipe.heads, (batch, 1, 1, 1), generator=generator)
        silent = torch.rand(batch, 1, 1, 1, generator=generator) < recipe.silenced
        keep = ~(silent & (torch.arange(recipe.heads)[:, None] == chosen))
        return ((z.view(batch, pos, recipe.heads, -1) * keep).view(batch, pos, width),)

    handles = [output.register_forward_pre_hook(silence) for output in outputs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _version() -> str:
    """Changes with the recipe: this file and the words."""
    ours = (Path(__file__), Path(vocabulary.__file__))
    return hashlib.sha256(b"".join(path.read_bytes() for path in ours)).hexdigest()[:12]
