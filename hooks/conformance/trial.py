"""The prompts, layers and tolerances that a model is checked with."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hooks import heads
from hooks.prompts import Prompts
from hooks.sites import STREAMS, HookedModel, Site, Stream

_LENGTH = 10  # longer than the windows of the twins
_MANY = 4  # models with more layers are sampled where a check runs once for each site

_LOOSER = {torch.bfloat16: 5e-2, torch.float16: 1e-2}  # nothing smaller can be told from rounding


@dataclass(frozen=True)
class Trial:
    """One model, and what it is asked to do.

    `here` and `there` differ in all tokens but the last `shared` ones: what those positions
    hold in the first layer is the same in both, so whatever differs later came through the
    parts of the blocks. That makes a cut of attention and MLPs alone complete, and not empty.
    """

    model: HookedModel
    reference: Any
    here: Prompts
    there: Prompts
    ragged: Prompts
    shared: int
    layers: tuple[int, ...]
    dtype: torch.dtype

    @property
    def limit(self) -> float:
        """The relative error that is allowed where numbers are recomputed."""
        return _LOOSER.get(self.dtype, 1e-5)

    @property
    def every_layer(self) -> range:
        return range(self.model.cfg.n_layers)

    @property
    def readable(self) -> list[Stream]:
        return [stream for stream in STREAMS if stream in self.model.access.readable]

    @property
    def writable(self) -> list[Stream]:
        return [stream for stream in STREAMS if stream in self.model.access.writable]

    def sites(self, stream: Stream) -> list[Site]:
        """The sites of `stream` in the sampled layers."""
        return self._there(stream, self.layers)

    def all_sites(self, stream: Stream) -> list[Site]:
        """The sites of `stream` in every layer."""
        return self._there(stream, self.every_layer)

    def _there(self, stream: Stream, layers: Iterable[int]) -> list[Site]:
        """Without the sites that are empty because all heads of their layer were removed."""
        found = sorted({_site(stream, layer) for layer in layers})
        return [site for site in found if not heads.is_empty(self.model, site)]


def prepare(model: HookedModel, reference: Any, *, seed: int) -> Trial:
    """Random prompts from `seed`, on the model's device, and the layers to look at."""
    parameter = next(model.original_model.parameters())
    generator = torch.Generator().manual_seed(seed)
    length = min(_LENGTH, model.cfg.n_ctx)
    lowest = 3 if model.cfg.d_vocab > 2 * _LENGTH else 0  # the first ids are often special
    drawn = torch.randint(lowest, model.cfg.d_vocab, (3, 3, length), generator=generator)
    here, there, ragged = drawn.to(parameter.device)
    shared = min(2, length - 1)
    there[:, length - shared :] = here[:, length - shared :]
    lengths = torch.tensor([length, max(1, length - 3), max(1, length // 2)])
    count = model.cfg.n_layers
    layers = range(count) if count <= _MANY else (0, count // 2, count - 1)
    padded = Prompts(ragged, lengths.to(parameter.device))
    runs = (Prompts.of(here[:2]), Prompts.of(there[:2]), padded)
    return Trial(model, reference, *runs, shared, tuple(layers), parameter.dtype)


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a part of the largest expected value; NaN stays NaN."""
    if found.numel() == 0:
        return 0.0
    same = found == expected  # also where both are infinite
    difference = (found.double() - expected.double()).abs().masked_fill(same, 0.0)
    finite = expected.double().abs().masked_fill(expected.isinf(), 0.0)
    return float(difference.max() / finite.max().clamp(min=1e-30))


def _site(stream: Stream, layer: int) -> Site:
    return Site(stream) if stream in ("embed", "final") else Site(stream, layer)
