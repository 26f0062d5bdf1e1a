"""Token ids with their real lengths: the only form in which text reaches a model."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prompts:
    """Right-padded token ids and how many of each row are real.

    What stands behind a row's length is padding; its ids do not matter, because the mask
    is always passed to the model.
    """

    tokens: Int[Tensor, "batch pos"]
    lengths: Int[Tensor, " batch"]

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.is_floating_point():
            raise ValueError(
                f"tokens must be integer ids of shape (batch, pos), got {self.tokens.dtype} "
                f"of shape {tuple(self.tokens.shape)}; models.prompts(model, texts) makes them"
            )
        if self.lengths.shape != self.tokens.shape[:1]:
            raise ValueError(
                f"one length for each prompt: {self.tokens.shape[0]} prompts, "
                f"lengths of shape {tuple(self.lengths.shape)}"
            )
        wrong = (self.lengths < 1) | (self.lengths > self.tokens.shape[1])
        if len(self) == 0 or bool(wrong.any()):
            row = int(wrong.nonzero()[0]) if len(self) else 0
            found = int(self.lengths[row]) if len(self) else 0
            raise ValueError(
                f"prompt {row} has {found} real tokens of {self.tokens.shape[1]}: "
                "every prompt needs at least one, and there must be at least one prompt"
            )

    @classmethod
    def of(cls, prompts: "Prompts | Tensor") -> "Prompts":
        """The prompts themselves, or a bare tensor of ids taken as without padding."""
        if isinstance(prompts, Prompts):
            return prompts
        if not isinstance(prompts, Tensor):
            raise TypeError(
                f"expected Prompts or a tensor of token ids, got {type(prompts).__name__}; "
                "models.prompts(model, texts) turns strings into Prompts"
            )
        full = torch.full(prompts.shape[:1], prompts.shape[-1], device=prompts.device)
        return cls(prompts, full)

    @classmethod
    def padded(cls, rows: list[list[int]], *, pad: int = 0) -> "Prompts":
        """Rows of token ids of any length, padded on the right."""
        if not rows:
            raise ValueError("no prompts given: expected at least one row of token ids")
        width = max(map(len, rows))
        tokens = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        return cls(tokens.reshape(len(rows), width).long(), torch.tensor([len(r) for r in rows]))

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, rows: int | slice | list[int] | Tensor) -> "Prompts":
        """Some of the prompts, cut to the longest of them; an int gives that one alone."""
        if isinstance(rows, int):
            rows = [range(len(self))[rows]]
        lengths = self.lengths[rows]
        width = int(lengths.max()) if lengths.numel() else 0
        return Prompts(self.tokens[rows, :width], lengths)

    @property
    def mask(self) -> Int[Tensor, "batch pos"]:
        """1 where a token is real, 0 where it is padding."""
        at = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return (at < self.lengths[:, None]).long()

    @property
    def last(self) -> Int[Tensor, " batch"]:
        """The position of each prompt's last real token."""
        return self.lengths - 1

    def to(self, device: torch.device | str) -> "Prompts":
        """The same prompts on `device`."""
        return Prompts(self.tokens.to(device), self.lengths.to(device))

    def batches(self, size: int) -> Iterator["Prompts"]:
        """The prompts in their order, `size` at a time."""
        check_batch_size(size)
        for start in range(0, len(self), size):
            yield self[start : start + size]


def check_batch_size(size: int) -> None:
    """Raise unless at least one prompt runs at a time."""
    if size < 1:
        raise ValueError(f"batch_size={size}: at least one prompt has to run at a time")
