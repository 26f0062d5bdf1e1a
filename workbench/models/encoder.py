"""Encoders without a language-model head, such as sentence encoders: read and edited, no logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import BertForMaskedLM, BertModel

from hooks import Access, Prompts, Site, capture
from hooks.conformance import audit
from workbench.models.bridge import Model, wrap


class NoLogits(ValueError):  # noqa: N818 - the name says what there is not
    """Logits were asked of a model that has none."""


class _AbsentHead(nn.Module):
    """Stands where TransformerLens expects BERT's language-model head; computes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.predictions = nn.Module()
        self.predictions.transform = nn.Module()
        self.predictions.transform.dense = nn.Identity()
        self.predictions.transform.LayerNorm = nn.Identity()
        self.predictions.decoder = nn.Identity()
        # TransformerLens asks every unembedding for its weight when it wraps a model.
        self.predictions.decoder.weight = nn.Parameter(torch.empty(0, width))
        self.passes = False

    def forward(self, activation: Tensor) -> Tensor:
        if self.passes:
            return activation
        raise NoLogits(
            "this model is an encoder without a language-model head, so it has no logits: read "
            "activations with capture(model, prompts, sites), whose pass ends before the head, or "
            "sentence vectors with models.embed"
        )


class Encoder(Model):
    """A `Model` whose sites can be read and written, and that has no logits to give."""

    @property
    def access(self) -> Access:
        """Which sites can be read and written, found out by running the model once."""
        if self._access is None:
            with _passing(self.original_model.cls):
                self._access = audit(self)
        return self._access


def wrap_encoder(
    model: BertModel, tokenizer: Any = None, *, name: str = "in memory", source: str = "in memory"
) -> Encoder:
    """A BERT without a head, ready to be studied; asking it for logits is an error.

    The weights are those of `model`, which is taken apart: save it before. The pooler, which
    nothing reads, is left out.
    """
    if not isinstance(model, BertModel):
        raise TypeError(
            f"expected a BertModel, got a {type(model).__name__}; models.wrap takes language "
            "models with their head"
        )
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # the head's weights are dropped
        whole: Any = BertForMaskedLM(model.config)
    model.pooler = None
    whole.bert = model
    whole.cls = _AbsentHead(model.config.hidden_size)
    wrapped = wrap(whole, tokenizer, name=name, source=source)
    wrapped.__class__ = Encoder
    assert isinstance(wrapped, Encoder)
    return wrapped


@torch.no_grad()
def embed(
    model: Model, prompts: Prompts, *, batch_size: int = 32
) -> Float[Tensor, "batch d_model"]:
    """One vector of length one for each prompt: the mean over its real tokens of what leaves the
    last layer, as sentence encoders of the MiniLM kind are trained to be read."""
    last = Site("resid_post", model.cfg.n_layers - 1)
    found = []
    for part in prompts.batches(batch_size):
        seen = capture(model, part, [last])
        real = rearrange(seen.prompts.mask, "batch pos -> batch pos 1").to(seen[last].dtype)
        mean = (seen[last] * real).sum(dim=1) / real.sum(dim=1)
        found.append(nn.functional.normalize(mean, dim=1))
    return torch.cat(found)


@contextmanager
def _passing(head: Any) -> Iterator[None]:
    """While open, what reaches the absent head goes through it."""
    head.passes = True
    try:
        yield
    finally:
        head.passes = False
