"""Your own prompts, from lists, a table or a csv file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.tasks.build import Case, Span, Unfit, UnfitError, built
from workbench.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd

Words = Sequence[str] | Sequence[Sequence[str]]
"""For each prompt the word that may follow, or several of which any will do."""

COLUMNS = ("clean", "corrupt", "answer", "foil")


def make(
    model: Any,
    clean: Sequence[str],
    corrupt: Sequence[str],
    answer: Words,
    foil: Words,
    *,
    name: str,
    positions: Mapping[str, Sequence[str] | Sequence[int]] | None = None,
    group: Sequence[str] | None = None,
    unfit: Unfit = "refuse",
) -> Task:
    """A task from your own strings, one of each for every prompt.

    clean, corrupt   equally many tokens each; the answer is what should follow `clean`
    answer, foil     one token each, written as it follows: " Paris" after "The capital is"; or
                     for each prompt a list of words that are taken together
    positions        role -> for each prompt a word that stands in `clean` once (its last token
                     is meant), or the index of a token; the role END is always there
    group            the name of each prompt's template
    unfit            "refuse" a row that does not fit this tokenizer, or "drop" it: the task
                     says how many were dropped
    """
    columns = {"clean": clean, "corrupt": corrupt, "answer": answer, "foil": foil}
    columns |= {"group": group} if group is not None else {}
    columns |= {f"positions[{role!r}]": places for role, places in (positions or {}).items()}
    _check_columns(name, columns)
    groups = group if group is not None else [""] * len(clean)
    places = positions or {}
    rows = zip(clean, corrupt, answer, foil, groups, strict=True)
    cases = []
    for row, (text, other, right, wrong, label) in enumerate(rows):
        try:
            roles = {role: _place(text, its[row], role) for role, its in places.items()}
            cases.append(Case(text, other, _words(right), _words(wrong), roles, label))
        except UnfitError as problem:
            raise ValueError(f"{name}, row {row}: {problem}") from None
    return built(model, name, cases, unfit=unfit)


def from_frame(
    model: Any,
    frame: "pd.DataFrame",
    *,
    name: str,
    roles: Sequence[str] = (),
    unfit: Unfit = "refuse",
) -> Task:
    """A task from a table with the columns clean, corrupt, answer, foil and, if you like, group.

    `roles` are columns that hold for each row a word of the clean prompt or a token's index.
    """
    missing = [column for column in (*COLUMNS, *roles) if column not in frame.columns]
    if missing:
        raise ValueError(
            f"{name}: column {missing[0]!r} is missing; there are {', '.join(map(str, frame))}. "
            f"Needed are {', '.join((*COLUMNS, *roles))}"
        )
    columns = {column: frame[column].tolist() for column in COLUMNS}
    group = frame["group"].astype(str).tolist() if "group" in frame.columns else None
    places = {role: frame[role].tolist() for role in roles}
    return make(model, **columns, name=name, positions=places, group=group, unfit=unfit)


def read_csv(
    model: Any,
    path: str | Path,
    *,
    name: str | None = None,
    roles: Sequence[str] = (),
    unfit: Unfit = "refuse",
) -> Task:
    """A task from a csv file: the columns of `from_frame`, spaces kept as they are written."""
    import pandas as pd

    path = Path(path)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    for role in roles:
        if role in frame.columns and frame[role].str.fullmatch(r"\d+").all():
            frame[role] = frame[role].astype(int)
    return from_frame(model, frame, name=name or path.stem, roles=roles, unfit=unfit)


def _check_columns(name: str, columns: Mapping[str, Any]) -> None:
    for what, column in columns.items():
        if isinstance(column, str):
            raise ValueError(f"{name}: {what} is one string; give a list with one for each prompt")
        if len(column) != len(columns["clean"]):
            raise ValueError(
                f"{name}: {what} has {len(column)} entries for {len(columns['clean'])} clean "
                "prompts; give one for each"
            )
    if not len(columns["clean"]):
        raise ValueError(f"{name}: no prompts were given: clean and the others are empty")
    for what in ("clean", "corrupt"):
        for row, text in enumerate(columns[what]):
            if not isinstance(text, str) or not text:
                raise ValueError(f"{name}, row {row}: {what} is {text!r}, expected some text")


def _words(given: Any) -> tuple[str, ...]:
    """One word or several; what is missing in a table comes as None or as a number."""
    several = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else given
    words = tuple(several)
    odd = [word for word in words if not isinstance(word, str) or not word]
    if odd:
        raise UnfitError(f"{odd[0]!r} is no word that could follow")
    return words


def _index(place: Any, role: str) -> int:
    try:
        index = int(place)
    except (TypeError, ValueError):  # what is missing in a table
        index = None
    if index is None or index != place:
        raise UnfitError(f"role {role!r} is at {place!r}, expected a word or a token's index")
    return index


def _place(text: str, place: str | int, role: str) -> Span | int:
    if not isinstance(place, str):
        return _index(place, role)
    found = list(re.finditer(rf"(?<!\w){re.escape(place.strip())}(?!\w)", text))
    if len(found) != 1:
        raise UnfitError(
            f"the word {place!r} of role {role!r} stands {len(found)} times in {text!r}; "
            "name a word that stands there once, or give the index of its token"
        )
    return found[0].span()
