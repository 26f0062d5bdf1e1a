"""From the residual stream to the logits that somebody reads, and no others."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from hooks.sites import HookedModel


@dataclass(frozen=True, eq=False)
class Reads:
    """Which logits are wanted: of each prompt's last token or of all, and for which tokens.

    `columns` has a row of token ids for each prompt (negative ids are placeholders, whose
    logits mean nothing); None is the whole vocabulary.
    """

    rows: Literal["last", "all"] = "last"
    columns: Int[Tensor, "batch columns"] | None = None

    def check(self, prompts: int, vocabulary: int) -> None:
        """Raise unless the columns are those of so many prompts, in a vocabulary of this size."""
        if self.columns is None:
            return
        count, largest = len(self.columns), int(self.columns.max())
        if count != prompts or largest >= vocabulary:
            raise ValueError(
                f"columns of {count} prompts, with ids up to {largest}, for {prompts} prompts and "
                f"a vocabulary of {vocabulary}: give a row of token ids for each prompt"
            )


@dataclass(frozen=True, eq=False)
class Tail:
    """What follows the last block: the last norm, the unembedding, a soft cap where there is one.

    `weight` and `bias` give single columns; None where single columns give other numbers.
    """

    norm: nn.Module | None
    head: nn.Module
    cap: float | None = None
    weight: Float[Tensor, "vocab d_model"] | None = None
    bias: Float[Tensor, " vocab"] | None = None

    def logits(self, resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos vocab"]:
        """The logits of the whole vocabulary."""
        normed = resid if self.norm is None else self.norm(resid)
        return self._capped(self.head(normed))

    def columns(
        self, resid: Float[Tensor, "row pos d_model"], ids: Int[Tensor, "row columns"]
    ) -> Float[Tensor, "row pos columns"]:
        """The logits of the tokens `ids` alone."""
        if self.weight is None:
            logits = self.logits(resid)
            return logits.gather(2, ids[:, None].clamp(min=0).expand(-1, logits.shape[1], -1))
        normed = resid if self.norm is None else self.norm(resid)
        ids = ids.clamp(min=0)
        found = einsum(normed, self.weight[ids], "row pos d, row columns d -> row pos columns")
        if self.bias is not None:
            found = found + self.bias[ids][:, None]
        return self._capped(found)

    def _capped(self, logits: Tensor) -> Tensor:
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def tail_of(
    model: HookedModel,
    resid: Float[Tensor, "row pos d_model"],
    logits: Float[Tensor, "row pos vocab"],
    *,
    close: float,
) -> Tail | None:
    """The tail that leads from `resid` to `logits` in this model; None where none is known."""
    own: Any = model
    config = getattr(model.original_model, "config", None)
    cap = getattr(config, "final_logit_softcapping", None)
    known = [Tail(own.ln_final, own.unembed, cap)]
    if hasattr(model.original_model, "cls"):  # BERT: a dense layer and a norm of their own
        known.append(Tail(None, model.original_model.cls))
    for tail in known:
        if _near(tail.logits(resid), logits, close):
            return _with_columns(tail, model, resid, logits, close)
    return None


def _with_columns(tail: Tail, model: Any, resid: Tensor, logits: Tensor, close: float) -> Tail:
    linear: Any = getattr(model.unembed, "original_component", None)
    weight = getattr(linear, "weight", None)
    if tail.norm is None or not isinstance(weight, Tensor) or weight.shape[0] != logits.shape[-1]:
        return tail
    found = Tail(tail.norm, tail.head, tail.cap, weight.detach(), getattr(linear, "bias", None))
    spread = torch.linspace(0, logits.shape[-1] - 1, min(64, logits.shape[-1]))
    ids = spread.long().to(logits.device)[None].expand(len(resid), -1)
    expected = logits.gather(2, ids[:, None].expand(-1, logits.shape[1], -1))
    return found if _near(found.columns(resid, ids), expected, close) else tail


def _near(found: Tensor, expected: Tensor, close: float) -> bool:
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= close * expected.abs().max())
