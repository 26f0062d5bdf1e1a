"""Your own labelled stretches of text, from csv or json lines."""

from pathlib import Path
from typing import Any

from workbench.tasks import files
from workbench.tasks.build import Span, Unfit
from workbench.tasks.files import Record
from workbench.tasks.labelled import LabelledWords, Sentence, labelled


def read_spans(
    model: Any,
    path: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    group: str = "group",
    marks: tuple[str, str] = ("[[", "]]"),
    name: str | None = None,
    unfit: Unfit = "refuse",
) -> LabelledWords:
    """One labelled stretch of text a row, from a csv file or json lines.

    The stretch stands between `marks` ("The [[keys]] are here", which are taken out), or is given
    by the columns `start` and `stop`: characters counted from 0, up to but not including `stop`.
    Rows with the same `group`, where there is such a column, are never split.
    """
    csv = Path(path).suffix.lower() == ".csv"
    rows = (files.csv_records if csv else files.records)(path, (text,))
    found = []
    for number, row in enumerate(rows):
        where = f"{path}, row {number}"
        if row.get(label) is None:
            raise ValueError(f"{where}: field {label!r} is missing; there are {', '.join(row)}")
        plain, span = _span(row, text, marks, where)
        named = str(row.get(group) or "")
        found.append(Sentence(plain, [span], [str(row[label])], (), named, where))
    return labelled(model, name or Path(path).stem, found, unfit=unfit)


def _span(row: Record, text: str, marks: tuple[str, str], where: str) -> tuple[str, Span]:
    written = row[text]
    if row.get("start") not in (None, "") and row.get("stop") not in (None, ""):
        try:
            return written, (int(row["start"]), int(row["stop"]))
        except ValueError:
            raise ValueError(
                f"{where}: start is {row['start']!r} and stop {row['stop']!r}, expected two "
                "whole numbers of characters"
            ) from None
    opening, closing = marks
    if written.count(opening) != 1 or written.count(closing) != 1:
        raise ValueError(
            f"{where}: {written[:60]!r} has {written.count(opening)} times {opening!r} and "
            f"{written.count(closing)} times {closing!r}; mark one stretch, or give start and stop"
        )
    before, _, rest = written.partition(opening)
    inside, _, after = rest.partition(closing)
    if not inside:
        raise ValueError(f"{where}: nothing stands between {opening!r} and {closing!r}")
    return before + inside + after, (len(before), len(before) + len(inside))
