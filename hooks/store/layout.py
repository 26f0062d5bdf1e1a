"""Which row of a store is which token of which document, and where it lies.

Rows are numbered from 0 over the whole store: document after document and, in a document, position
after position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from hooks.store.survey import Survey

Positions = int | Sequence[int] | Literal["all"]


@dataclass(frozen=True, eq=False)
class Places:
    """Where some rows lie, and what they are."""

    document: Int[Tensor, " row"]
    position: Int[Tensor, " row"]
    batch: Int[Tensor, " row"]
    within: Int[Tensor, " row"]  # the row's number in its batch
    token: Int[Tensor, " row"]  # its token's number among the batch's real tokens


@dataclass(frozen=True, eq=False)
class Layout:
    """The arithmetic of rows, from what was counted before anything was run."""

    survey: Survey

    @cached_property
    def _row_ends(self) -> Int[Tensor, " document"]:
        return self.survey.rows_of_documents.cumsum(0)

    @cached_property
    def _tokens_before(self) -> Int[Tensor, " document"]:
        """Real tokens of the batch before each document."""
        whole = self.survey.lengths.cumsum(0) - self.survey.lengths
        each = self.survey.tokens_of_batches()
        return whole - (each.cumsum(0) - each)[self.survey.batch_of_documents()]

    @cached_property
    def _batch_ends(self) -> Int[Tensor, " batch"]:
        return self.survey.rows_of_batches().cumsum(0)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self._row_ends[-1])

    def of_batch(self, batch: int) -> Int[Tensor, " row"]:
        """All rows of one batch."""
        first = int(self._batch_ends[batch - 1]) if batch else 0
        return torch.arange(first, int(self._batch_ends[batch]))

    def places(self, rows: Int[Tensor, " row"]) -> Places:
        """Where these rows lie, and what they are."""
        each, chosen = self.survey.rows_of_documents, self.survey.chosen
        rows = rows.contiguous()
        document = torch.searchsorted(self._row_ends, rows, right=True)
        offset = rows - (self._row_ends - each)[document]
        position = offset if chosen is None else chosen[document, offset]
        batch = torch.searchsorted(self._batch_ends, rows, right=True)
        starts = self._batch_ends - self.survey.rows_of_batches()
        token = self._tokens_before[document] + position
        return Places(document, position, batch, rows - starts[batch], token)

    def chosen(self, documents: Sequence[int] | None, positions: Positions) -> Int[Tensor, " row"]:
        """The rows of these documents (all) at these positions, in the order of the request."""
        numbers = torch.tensor(self._numbers(documents), dtype=torch.long)
        each = self.survey.rows_of_documents
        starts, sizes = (self._row_ends - each)[numbers], each[numbers]
        if not isinstance(positions, str):
            listed = [positions] if isinstance(positions, int) else list(positions)
            return (starts[:, None] + self._offsets(numbers, torch.tensor(listed))).flatten()
        if positions != "all":
            raise ValueError(f"no positions {positions!r}: give 'all' or indices")
        before = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        return starts.repeat_interleave(sizes) + torch.arange(int(sizes.sum())) - before

    def _numbers(self, documents: Sequence[int] | None) -> list[int]:
        count = len(self.survey.lengths)
        numbers = range(count) if documents is None else documents
        for number in numbers:
            if not 0 <= number < count:
                raise ValueError(f"there is no document {number}: they are 0 to {count - 1}")
        return list(numbers)

    def _offsets(
        self, numbers: Int[Tensor, " document"], positions: Int[Tensor, " chosen"]
    ) -> Int[Tensor, "document chosen"]:
        """Which of its own rows each document has for each position."""
        chosen = self.survey.chosen
        if chosen is None:
            there = (positions >= 0) & (positions < self.survey.lengths[numbers][:, None])
            offsets = positions.expand(len(numbers), -1)
        else:
            same = chosen[numbers][:, None, :] == positions[None, :, None]
            there, offsets = same.any(dim=2), same.long().argmax(dim=2)
        if bool(there.all()):
            return offsets
        row, which = (~there).nonzero()[0].tolist()
        number = int(numbers[row])
        have = f"0 to {int(self.survey.lengths[number]) - 1}"
        have = have if chosen is None else ", ".join(map(str, chosen[number].tolist()))
        raise ValueError(
            f"position {int(positions[which])} of document {number} is not stored; stored: {have}"
        )
