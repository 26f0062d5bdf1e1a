"""Rows of csv, json and json-lines files, with their fields checked."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]


def csv_records(path: str | Path, fields: Sequence[str]) -> list[Record]:
    """The rows of a csv file, of which each must have `fields`."""
    # Spreadsheets put a byte order mark before the first column's name.
    with Path(path).open(encoding="utf-8-sig", newline="") as stream:
        return checked(path, list(csv.DictReader(stream)), fields)


def records(path: str | Path, fields: Sequence[str]) -> list[Record]:
    """The objects of a json list, or one on each line, of which each must have `fields`."""
    text = Path(path).read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        return checked(path, _parsed(path, text, "the file"), fields)
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [_parsed(path, line, f"row {number}") for number, line in enumerate(lines)]
    return checked(path, rows, fields)


def field(row: Record, name: str, path: str | Path, number: int) -> str:
    """A field of a row, which must be there and hold text."""
    if row.get(name) is None:
        found = ", ".join(map(str, row)) or "no fields"
        raise ValueError(f"{path}, row {number}: field {name!r} is missing; there are {found}")
    if not isinstance(row[name], str):
        raise ValueError(f"{path}, row {number}: field {name!r} is {row[name]!r}, expected text")
    return row[name]


def _parsed(path: str | Path, text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {what} is not json: {error}") from error


def checked(path: str | Path, rows: Any, fields: Sequence[str]) -> list[Record]:
    """The rows themselves, each of which is an object with `fields`."""
    if not rows:
        raise ValueError(f"{path}: there are no rows; expected fields {', '.join(fields)}")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"{path}, row {number}: expected an object, found {row!r}")
        for name in fields:
            field(row, name, path, number)
    return rows
