"""Where documents come from: files, a data set of the hub, or what every Python brings along."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.corpora.corpus import Corpus, text
from workbench.corpora.written import passages

_PLAIN = (".txt", ".md", ".rst", ".text")
_TABLES = (".jsonl", ".ndjson", ".csv")


def topics(model: Any, *, length: int = 128, most_tokens: int | None = None) -> Corpus:
    """English technical prose that every Python has: the help topics of `pydoc`.

    About 465 kB in some 80 documents. They differ between versions of Python, so results carry
    the corpus's digest and no number to be remembered rests on them.
    """
    from pydoc_data.topics import topics as found

    return text(
        model, dict(sorted(found.items())), name="pydoc topics", length=length,
        most_tokens=most_tokens,
    )  # fmt: skip


def named(model: Any, name: str, *, length: int = 128, most_tokens: int | None = None) -> Corpus:
    """The corpus that a word stands for: "topics", "prose", "hub:NAME", or a path."""
    if name == "topics":
        return topics(model, length=length, most_tokens=most_tokens)
    if name == "prose":
        return passages(model, length=length, most_tokens=most_tokens)
    if name.startswith("hub:"):
        return hub(model, name.removeprefix("hub:"), length=length, most_tokens=most_tokens)
    return files(model, name, length=length, most_tokens=most_tokens)


def files(
    model: Any,
    path: Path | str,
    *,
    field: str = "text",
    identifier: str = "id",
    length: int = 128,
    most_tokens: int | None = None,
) -> Corpus:
    """The documents of a file, or of all files in a folder and below it, in order of their names.

    A text file is one document; each row of a jsonl or csv file is one, its text in `field`. A
    document is named after its file and, in those, after the row's `identifier` or its number.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"there is no file or folder {root}")
    kinds = (*_PLAIN, *_TABLES)
    found = [root] if root.is_file() else sorted(one for one in root.rglob("*") if one.is_file())
    chosen = found if root.is_file() else [one for one in found if one.suffix.lower() in kinds]
    if not chosen or chosen[0].suffix.lower() not in kinds:
        raise ValueError(f"{root} has no documents: files end in {', '.join(kinds)}")
    documents: dict[str, str] = {}
    for one in chosen:
        start = one.name if root.is_file() else one.relative_to(root).as_posix()
        for name, body in _documents(one, field, identifier):
            key = f"{start}{name}"
            if key in documents:
                raise ValueError(f"two documents are called {key}: {identifier!r} must differ")
            documents[key] = body
    return text(model, documents, name=root.name, length=length, most_tokens=most_tokens)


def hub(
    model: Any,
    name: str,
    *,
    split: str = "train",
    field: str = "text",
    documents: int = 1000,
    length: int = 128,
    most_tokens: int | None = None,
) -> Corpus:
    """The first documents of a data set of the Hugging Face hub, by its name. Needs the network."""
    from datasets import load_dataset

    rows: Any = load_dataset(name, split=split, streaming=True)
    found: dict[str, str] = {}
    for number, row in enumerate(rows.take(documents)):
        if field not in row:
            raise ValueError(f"{name} has no field {field!r}; it has {', '.join(row)}")
        found[f"{split}:{number}"] = row[field]
    return text(model, found, name=f"{name} ({split})", length=length, most_tokens=most_tokens)


def _documents(path: Path, field: str, identifier: str) -> Iterator[tuple[str, str]]:
    """Each document's name within its file, and its text."""
    kind = path.suffix.lower()
    if kind in _PLAIN:
        try:
            yield "", path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8 (byte {error.start}): {error}") from error
        return
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.DictReader(stream) if kind == ".csv" else _objects(path, stream)
        for number, row in enumerate(lines):
            body = row.get(field)
            if not isinstance(body, str):
                there = ", ".join(map(str, row)) or "no fields"
                raise ValueError(
                    f"{path}, row {number}: no text in field {field!r}; there are {there}"
                )
            yield f":{row.get(identifier) or number}", body


def _objects(path: Path, stream: Any) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(stream):
        if line.strip():
            try:
                found = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not json: {error}") from error
            if not isinstance(found, dict):
                raise ValueError(f"{path}, line {number}: expected an object, found {found!r}")
            yield found
