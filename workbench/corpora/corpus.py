"""What a corpus is: documents cut into rows of tokens, each row out of one document."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from hooks import Prompts
from workbench.models import words


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents as rows of at most `length` tokens. No row holds parts of two documents.

    A document that is longer goes on in the next row, which the model reads as a text of its
    own. `said` names what was left out, and is empty where nothing was.

    rows      the tokens, document after document
    document  which document each row is from: an index into `documents`, never falling
    start     where in its document each row begins
    prefix    how many tokens the tokenizer puts before every row (a BOS); they are in `rows`
    """

    name: str
    rows: Prompts
    document: Int[Tensor, " row"]
    start: Int[Tensor, " row"]
    documents: tuple[str, ...]
    length: int
    prefix: int
    tokenizer: str  # its digest
    said: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens(self) -> int:
        """How many tokens there are, without padding."""
        return int(self.rows.lengths.sum())

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer, the documents' names, and every row and where it is from."""
        content = hashlib.sha256(f"{self.tokenizer} {self.length} {self.prefix}".encode())
        content.update("\0".join(self.documents).encode("utf-8", "surrogatepass"))
        real = (self.rows.tokens * self.rows.mask).cpu()
        for part in (real, self.rows.lengths, self.document, self.start):
            content.update(part.long().cpu().contiguous().numpy().tobytes())
        return content.hexdigest()

    def batches(self, rows: int) -> list[Prompts]:
        """The rows in their order, so many at a time; the same whenever they are gone through."""
        if rows < 1:
            raise ValueError(f"batches of {rows} rows: take at least 1")
        return list(self.rows.batches(rows))

    def chosen(self, rows: Sequence[int]) -> "Corpus":
        """Some of the rows, in the order of the corpus, with all documents' names."""
        order = torch.tensor(sorted(set(rows)), dtype=torch.long)
        if not len(order) or order[0] < 0 or order[-1] >= len(self):
            raise ValueError(f"rows of this corpus are 0 to {len(self) - 1}, and at least one")
        part = Prompts(self.rows.tokens[order], self.rows.lengths[order])
        said = f"{len(order)} of {len(self)} rows of {self.name}"
        return replace(
            self, rows=part, document=self.document[order], start=self.start[order], said=said
        )

    def halves(self) -> tuple["Corpus", "Corpus"]:
        """Every other document, and the others, so that what is found in one is tested on another.

        A corpus of one document is halved by rows.
        """
        by = self.document if len(self.document.unique()) > 1 else torch.arange(len(self))
        even = by.unique(return_inverse=True)[1] % 2 == 0
        if len(self) < 2:
            raise ValueError("one row cannot be halved: give more text")
        even_rows, odd_rows = even.nonzero()[:, 0].tolist(), (~even).nonzero()[:, 0].tolist()
        return self.chosen(even_rows), self.chosen(odd_rows)

    def at_most(self, tokens: int) -> "Corpus":
        """The first rows, up to so many tokens; refused where not even one row fits."""
        within = int((self.rows.lengths.cumsum(0) <= tokens).sum())
        if not within:
            first = int(self.rows.lengths[0])
            raise ValueError(f"at most {tokens} tokens: the first row alone has {first}")
        return self if within == len(self) else self.chosen(range(within))

    def words(self, model: Any, row: int) -> list[str]:
        """The tokens of one row as strings."""
        return words(model, self.rows[row])[0]

    def __str__(self) -> str:
        said = f"; {self.said}" if self.said else ""
        return (
            f"{self.name}: {self.tokens:,} tokens of {len(self.document.unique()):,} documents in "
            f"{len(self):,} rows of at most {self.length}{said}"
        )


def text(
    model: Any,
    documents: Mapping[str, str] | Sequence[str],
    *,
    name: str = "own text",
    length: int = 128,
    most_tokens: int | None = None,
) -> Corpus:
    """Your own documents (by name, or numbered) as rows of at most `length` of the model's tokens.

    With `most_tokens` the corpus ends with the row that would pass it, and says so. Empty
    documents are left out, and that is said too.
    """
    named = documents if isinstance(documents, Mapping) else dict(_numbered(documents))
    if not named:
        raise ValueError("a corpus needs at least one document")
    prefix = _prefix(model)
    _check_length(model, length, len(prefix))
    ids, tokens, document, start = [], [], [], []
    used, empty, cut = 0, 0, False
    for key, row, at in _rows(model, named, length - len(prefix)):
        if row is None:
            empty += 1
            continue
        cut = most_tokens is not None and used + len(row) + len(prefix) > most_tokens
        if cut:
            break
        if not ids or ids[-1] != key:
            ids.append(key)
        tokens.append([*prefix, *row])
        document.append(len(ids) - 1)
        start.append(at)
        used += len(tokens[-1])
    if not tokens:
        raise ValueError(
            f"no row fits: {len(named)} documents, {empty} of them empty, at most {most_tokens} "
            "tokens; give text, or allow more tokens"
        )
    notes = [f"{empty} empty documents left out"] * bool(empty)
    if cut:
        notes.append(f"cut at {used:,} tokens, {len(named) - empty - len(ids)} documents not begun")
    return Corpus(
        name, Prompts.padded(tokens, pad=_pad(model)), torch.tensor(document), torch.tensor(start),
        tuple(ids), length, len(prefix), model.origin.tokenizer, "; ".join(notes),
    )  # fmt: skip


def _rows(
    model: Any, named: Mapping[str, str], width: int
) -> Iterator[tuple[str, list[int] | None, int]]:
    """Each document's rows and where they begin; None for one without tokens."""
    for key, one in named.items():
        found = _ids(model, one)
        if not found:
            yield key, None, 0
        for at in range(0, len(found), width):
            yield key, found[at : at + width], at


def _ids(model: Any, document: str) -> list[int]:
    if not isinstance(document, str):
        raise TypeError(f"expected documents of text, found {document!r}")
    return list(model.tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"])


def _numbered(documents: Sequence[str]) -> Iterator[tuple[str, str]]:
    if isinstance(documents, str):
        raise TypeError("one string was given: give a list of documents, or name: text")
    return ((str(number), one) for number, one in enumerate(documents))


def _prefix(model: Any) -> list[int]:
    if getattr(model, "tokenizer", None) is None:
        raise ValueError(f"{model.origin.name} was loaded without a tokenizer: a corpus needs one")
    return [model.tokenizer.bos_token_id] if model.cfg.default_prepend_bos else []


def _pad(model: Any) -> int:
    return model.tokenizer.pad_token_id or 0


def _check_length(model: Any, length: int, prefix: int) -> None:
    limit = model.cfg.n_ctx
    if not prefix + 2 <= length <= limit:
        raise ValueError(
            f"rows of {length} tokens: {model.origin.name} takes {prefix + 2} to {limit}"
        )
