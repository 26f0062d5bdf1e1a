"""Sentences that differ in whether they are grammatical."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from hooks import Prompts
from workbench import models
from workbench.tasks import files


@dataclass(frozen=True, eq=False)
class SentencePairs:
    """A good and a bad sentence each: a model that knows finds the good one likelier.

    group    which phenomenon each pair is about; `phenomena` has their names
    """

    name: str
    good: Prompts
    bad: Prompts
    group: Int[Tensor, " batch"]
    phenomena: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.good) == len(self.bad) == len(self.group):
            raise ValueError(
                f"{self.name}: {len(self.good)} good sentences, {len(self.bad)} bad ones and "
                f"{len(self.group)} groups; there must be equally many"
            )

    def __len__(self) -> int:
        return len(self.good)

    def __getitem__(self, rows: slice | Int[Tensor, " chosen"]) -> "SentencePairs":
        """Some of the pairs."""
        parts = (self.good[rows], self.bad[rows], self.group[rows], self.phenomena)
        return SentencePairs(self.name, *parts)


def pairs(
    model: Any,
    source: str | Path | Iterable[Mapping[str, str]],
    *,
    name: str | None = None,
    fields: tuple[str, str] = ("sentence_good", "sentence_bad"),
    group: str = "UID",
) -> SentencePairs:
    """Sentence pairs from json lines as BLiMP has them (Warstadt et al. 2020), or from rows.

    `fields` name the good and the bad sentence, `group` the phenomenon (rows without it are one
    group). The two sentences need not have equally many tokens.
    """
    if isinstance(source, str | Path):
        where, rows = str(source), files.records(source, fields)
    else:
        where, rows = "rows", files.checked("rows", list(source), fields)
    for number, row in enumerate(rows):
        if row[fields[0]] == row[fields[1]]:
            raise ValueError(f"{where}, row {number}: {fields[0]} and {fields[1]} are the same")
    good, bad = (models.prompts(model, [row[field] for row in rows]) for field in fields)
    labels = [str(row.get(group, "")) for row in rows]
    phenomena = tuple(dict.fromkeys(labels))
    member = torch.tensor([phenomena.index(label) for label in labels])
    called = name or (Path(source).stem if isinstance(source, str | Path) else "pairs")
    return SentencePairs(called, good, bad, member, phenomena)
