"""Public data sets in their own formats, to tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.models.text import piece
from workbench.tasks import files
from workbench.tasks.build import Case, Unfit, built
from workbench.tasks.files import Record
from workbench.tasks.greater_than import endings
from workbench.tasks.task import Task
from workbench.tasks.tokens import encoded, single, token_at, tokenizer_of


def read_eap_ig(
    model: Any,
    path: str | Path,
    *,
    corrupted: str = "corrupted",
    name: str | None = None,
    unfit: Unfit = "refuse",
) -> Task:
    """The csv files of EAP-IG (Hanna et al. 2024): columns clean, corrupted, and what follows.

    What follows is `label` (greater-than: the two digits of the year) or `correct_idx` and
    `incorrect_idx`: token ids, which mean words only to the tokenizer that the file was made for.
    `corrupted` names the column of corrupt prompts ("corrupted_hard" in some files).
    """
    rows = files.csv_records(path, ("clean", corrupted))
    cases = []
    for number, row in enumerate(rows):
        answer, foil = _followers(model, row, path, number)
        cases.append(Case(row["clean"], row[corrupted], answer, foil))
    return built(model, name or Path(path).stem, cases, unfit=unfit)


def _followers(
    model: Any, row: Record, path: str | Path, number: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if "label" in row and "correct_idx" not in row:
        label = row["label"].zfill(2)
        if not (label.isdecimal() and len(label) == 2):
            raise ValueError(
                f"{path}, row {number}: label is {row['label']!r}, expected the last two digits "
                "of a year"
            )
        answer, foil = endings(tokenizer_of(model), row["clean"], label)
        return tuple(answer), tuple(foil)
    answer, foil = (
        _decoded(model, files.field(row, column, path, number), column, path, number)
        for column in ("correct_idx", "incorrect_idx")
    )
    return (answer,), (foil,)


def _decoded(model: Any, text: str, column: str, path: str | Path, number: int) -> str:
    size = len(tokenizer_of(model))
    if not text.isdecimal() or int(text) >= size:
        raise ValueError(
            f"{path}, row {number}: {column} is {text!r}, expected a token id below {size}: "
            "the file was made for another tokenizer"
        )
    return piece(model.tokenizer, int(text))


def read_feature_circuits(
    model: Any, path: str | Path, *, name: str | None = None, unfit: Unfit = "refuse"
) -> Task:
    """The json lines of feature-circuits (Marks et al. 2024), such as its subject-verb agreement.

    Fields clean_prefix, patch_prefix, clean_answer, patch_answer; `case`, if any, is the group.
    """
    names = ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer")
    rows = files.records(path, names)
    cases = []
    for row in rows:
        clean, corrupt, answer, foil = (row[field] for field in names)
        cases.append(Case(clean, corrupt, (answer,), (foil,), group=str(row.get("case", ""))))
    return built(model, name or Path(path).stem, cases, unfit=unfit)


def read_counterfact(
    model: Any, path: str | Path, *, name: str | None = None, unfit: Unfit = "refuse"
) -> Task:
    """known_1000.json of CounterFact (Meng et al. 2022): "Beats Music is owned by" Apple.

    The corrupt prompt is the next of the file that asks the same about a subject of as many
    tokens with another answer, and that answer is the foil. Facts without such a partner, or
    whose answer is several tokens, do not fit.
    Roles: subject (its last token), END. The group is the relation.
    """
    rows = files.records(path, ("subject", "attribute", "prompt", "relation_id"))
    for number, row in enumerate(rows):
        if row["subject"] not in row["prompt"]:
            raise ValueError(
                f"{path}, row {number}: the subject {row['subject']!r} is not in the prompt "
                f"{row['prompt']!r}"
            )
    partner = _partners(tokenizer_of(model), rows)
    cases = [
        _fact(row, None if other is None else rows[other])
        for row, other in zip(rows, partner, strict=True)
    ]
    return built(model, name or Path(path).stem, cases, unfit=unfit)


def _fact(row: Record, other: Record | None) -> Case:
    start = row["prompt"].index(row["subject"])
    roles = {"subject": (start, start + len(row["subject"]))}
    answer, group = (f" {row['attribute']}",), row["relation_id"]
    if other is None:
        problem = f"no other fact has the form of {row['prompt']!r}, token by token"
        return Case(row["prompt"], "", answer, (), roles, group, problem)
    return Case(row["prompt"], other["prompt"], answer, (f" {other['attribute']}",), roles, group)


def _partners(tokenizer: Any, rows: Sequence[Record]) -> list[int | None]:
    """The row that each is corrupted with: the next that asks alike and answers otherwise."""
    short = set(single(tokenizer, [row["attribute"] for row in rows]))
    alike: dict[tuple[str, int, int], list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault(_form(tokenizer, row), []).append(index)
    partner: list[int | None] = [None] * len(rows)
    for members in alike.values():
        for place, index in enumerate(members):
            own = rows[index]["attribute"]
            for other in (*members[place + 1 :], *members[:place]):
                if rows[other]["attribute"] != own and rows[other]["attribute"] in short:
                    partner[index] = other
                    break
    return partner


def _form(tokenizer: Any, row: Record) -> tuple[str, int, int]:
    """The prompt without its subject, the subject's last token, and how many tokens there are."""
    prompt, subject = row["prompt"], row["subject"]
    start = prompt.index(subject)
    stop = start + len(subject)
    last = token_at(tokenizer, prompt, start, stop)
    return f"{prompt[:start]}{{}}{prompt[stop:]}", last, len(encoded(tokenizer, prompt))
