"""Which recipe makes the model that a name stands for, and in which shape."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import nn
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from workbench import statistics
from workbench.models.bridge import Model, wrap
from workbench.models.planted import (
    brackets,
    detectors,
    gates,
    head_types,
    induction,
    pouring,
    redundancy,
    trained,
)
from workbench.models.planted.truth import Truth
from workbench.models.planted.vocabulary import SPECIAL, tokenizer
from workbench.models.planted.wiring import Blueprint

PREFIX = "planted/"

_Recipe = Callable[[str, torch.Generator], tuple[Blueprint, Truth]]

_WIRED: Mapping[str, _Recipe] = {
    "and": partial(gates.gate, kind="and"),
    "or": partial(gates.gate, kind="or"),
    "induction-pair": induction.pair,
    "duplicate": redundancy.duplicate,
    "redundant": redundancy.redundant,
    "backup": redundancy.backup,
    "brackets": brackets.brackets,
}
_NATIVE_ONLY: Mapping[str, _Recipe] = {
    "self-repair": redundancy.self_repair,
    "neurons": detectors.detectors,
    "head-types": head_types.head_types,
    "induction-pair-gqa": partial(induction.pair, sharing=2),
    "duplicate-gqa": partial(redundancy.duplicate, sharing=2),
}

_SHAPES: Mapping[str, Callable[[Blueprint, torch.Generator], nn.Module]] = {
    "-gpt2": pouring.gpt2,
    "-llama": pouring.llama,
}

NAMES: tuple[str, ...] = (*_WIRED, *_NATIVE_ONLY, *trained.RECIPES)
"""The planted models; each is loaded as "planted/NAME", or "planted/NAME/SEED"."""

SHAPED: tuple[str, ...] = (
    *(f"{name}{shape}" for name in _WIRED for shape in _SHAPES),
    *(f"{name}-llama" for name in _NATIVE_ONLY if name.endswith("-gqa")),
)
"""The hand-wired ones again, with the modules of GPT-2 and of Llama."""


@dataclass(frozen=True)
class _Named:
    recipe: str
    seed: int

    @property
    def full(self) -> str:
        return f"{PREFIX}{self.recipe}" + (f"/{self.seed}" if self.seed else "")

    @property
    def wiring(self) -> str:
        """The recipe whatever its shape: all shapes of a model are wired alike."""
        return self.recipe.removesuffix("-gpt2").removesuffix("-llama")

    @property
    def shape(self) -> str:
        return self.recipe.removeprefix(self.wiring)


def load(name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """A model whose mechanism is known, because it was put there; `truth` says what it is.

    `name` is "planted/NAME" or "planted/NAME/SEED" with one of `NAMES`. Hand-wired ones take
    milliseconds; trained ones seconds the first time, and are then kept in the cache.
    """
    named = _parsed(name)
    if named.recipe in trained.RECIPES:
        return trained.load(named.recipe, named.seed, name=named.full, device=device, dtype=dtype)
    plan, _ = _wired(named)
    model: Any = unwrapped(name).to(device, dtype)
    if not named.shape:
        model = build_bridge_from_module(model, "TransformerLensNative", tl_config=model.cfg)
    words = tokenizer(plan.words[len(SPECIAL) :])
    return wrap(model, words, name=named.full, source=f"wired by hand, seed {named.seed}")


def unwrapped(name: str) -> nn.Module:
    """A hand-wired model before TransformerLens wraps it: the reference of `check_model`."""
    named = _parsed(name)
    plan, _ = _wired(named)
    if not named.shape:
        return pouring.native(plan)
    return _SHAPES[named.shape](plan, statistics.derive(named.seed, "planted", named.recipe))


def truth(model: str | Model) -> Truth:
    """What was planted in a model, or in the model of that name."""
    named = _parsed(model if isinstance(model, str) else model.origin.name)
    if named.recipe in trained.RECIPES:
        return trained.truth(named.recipe, named.full)
    return _wired(named)[1]


def _wired(named: _Named) -> tuple[Blueprint, Truth]:
    recipe = {**_WIRED, **_NATIVE_ONLY}[named.wiring]
    return recipe(named.full, statistics.derive(named.seed, "planted", named.wiring))


def _parsed(name: str) -> _Named:
    found = re.fullmatch(rf"{PREFIX}([^/]+)(?:/(\d+))?", name)
    if found is None or found[1] not in (*NAMES, *SHAPED):
        asked = name.removeprefix(PREFIX).partition("/")[0]
        near = get_close_matches(asked, (*NAMES, *SHAPED), n=1)
        hint = f"; did you mean {PREFIX + near[0]!r}?" if near else "."
        raise ValueError(
            f"no planted model {name!r}{hint} There are {', '.join(NAMES)}; most have the "
            f'shapes NAME-gpt2 and NAME-llama too, and another seed is "{PREFIX}NAME/SEED"'
        )
    return _Named(found[1], int(found[2] or 0))
