"""Going through the batches once before anything is run: how much there is, and what exactly."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from hooks.places import Positions, rows_of_positions
from hooks.prompts import Prompts

Batches = Iterable[Prompts | Tensor]
Kept = Literal["all", "last"] | Positions
"""Which positions of a document are stored: all, its last, one for each document (a tensor over
the whole corpus, such as the place of a marked word), or the same ones of every document."""


@dataclass(frozen=True, eq=False)
class Survey:
    """How the corpus is made up. Documents are counted from 0 over all batches."""

    lengths: Int[Tensor, " document"]
    documents: Int[Tensor, " batch"]  # in each batch
    widths: Int[Tensor, " batch"]  # of the longest document of each batch
    chosen: Int[Tensor, "document chosen"] | None  # positions that are kept; None is all
    digests: tuple[str, ...]  # SHA-256 of what each batch holds

    @property
    def tokens(self) -> int:
        """Real tokens of the whole corpus."""
        return int(self.lengths.sum())

    @property
    def rows_of_documents(self) -> Int[Tensor, " document"]:
        """How many activations of each document are kept, at every site."""
        if self.chosen is None:
            return self.lengths
        return torch.full_like(self.lengths, self.chosen.shape[1])

    def batch_of_documents(self) -> Int[Tensor, " document"]:
        """Which batch each document is in."""
        return torch.repeat_interleave(torch.arange(len(self.documents)), self.documents)

    def rows_of_batches(self) -> Int[Tensor, " batch"]:
        """How many activations of each batch are kept, at every site."""
        return _sums(self.rows_of_documents, self.documents)

    def tokens_of_batches(self) -> Int[Tensor, " batch"]:
        """How many real tokens each batch has."""
        return _sums(self.lengths, self.documents)


def survey(batches: Batches, kept: Kept) -> Survey:
    """Go through the batches once, without keeping them."""
    if isinstance(batches, Iterator):
        raise ValueError(
            "these batches can be gone through only once, but they are counted before they are "
            "run: give a list, or an object whose __iter__ begins anew"
        )
    lengths, chosen, widths, digests, first = [], [], [], [], 0
    for batch in batches:
        prompts = Prompts.of(batch).to("cpu")
        lengths.append(prompts.lengths.long())
        widths.append(prompts.tokens.shape[1])
        digests.append(digest(prompts))
        chosen.append(_chosen(kept, prompts, first))
        first += len(prompts)
    if not lengths:
        raise ValueError("there are no batches: nothing to store")
    if isinstance(kept, Tensor) and len(kept) != first:
        raise ValueError(_one_for_each(len(kept), str(first)))
    return Survey(
        torch.cat(lengths),
        torch.tensor([len(one) for one in lengths]),
        torch.tensor(widths),
        None if kept == "all" else torch.cat(chosen),
        tuple(digests),
    )


def digest(prompts: Prompts) -> str:
    """SHA-256 of the real tokens, where they stand and how wide the batch is."""
    real = torch.where(prompts.mask.bool(), prompts.tokens, 0).long().cpu()
    content = hashlib.sha256(f"{tuple(real.shape)} {prompts.lengths.tolist()}".encode())
    content.update(bytes_of(real))
    return content.hexdigest()


def bytes_of(tensor: Tensor) -> Any:
    """The bytes of a tensor, without a copy where that is possible."""
    plain = tensor.detach().cpu().contiguous().flatten()
    return plain.view(torch.uint8).numpy() if plain.numel() else b""


def _chosen(kept: Kept, prompts: Prompts, first: int) -> Int[Tensor, "document chosen"]:
    """The kept positions of one batch, whose first document has the number `first`."""
    if isinstance(kept, str):
        if kept not in ("all", "last"):
            raise ValueError(f"no positions {kept!r}: give 'all', 'last', or indices")
        return prompts.last.long()[:, None]
    if isinstance(kept, Tensor):
        if len(kept) < first + len(prompts):
            raise ValueError(_one_for_each(len(kept), f"at least {first + len(prompts)}"))
        kept = kept[first : first + len(prompts)]
    rows = rows_of_positions(kept, len(prompts)).long().cpu()
    short = (rows >= prompts.lengths[:, None]).any(dim=1)
    if bool(short.any()):
        row = int(short.nonzero()[0])
        raise ValueError(
            f"document {first + row} has {int(prompts.lengths[row])} tokens, asked for position "
            f"{int(rows[row].max())}; positions count from 0"
        )
    return rows


def _sums(values: Tensor, sizes: Tensor) -> Tensor:
    """Sums of consecutive groups of the given sizes."""
    ends = torch.cat([torch.zeros(1, dtype=torch.long), values.cumsum(0)])
    at = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    return ends[at[1:]] - ends[at[:-1]]


def _one_for_each(given: int, documents: str) -> str:
    return f"{given} positions for {documents} documents: give one for each document of the corpus"
