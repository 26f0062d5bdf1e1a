"""Public data sets in their own formats, to tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.tasks import files
from workbench.tasks.build import Case, Unfit, built
from workbench.tasks.files import Record
from workbench.tasks.greater_than import endings
from workbench.tasks.task import Task
from workbench.tasks.tokens import encoded, token_at


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
        answer, foil = endings(model.tokenizer, row["clean"], label)
        return tuple(answer), tuple(foil)
    return tuple(
        (_decoded(model, files.field(row, column, path, number), column, path, number),)
        for column in ("correct_idx", "incorrect_idx")
    )


def _decoded(model: Any, text: str, column: str, path: str | Path, number: int) -> str:
    size = len(model.tokenizer)
    if not text.isdecimal() or int(text) >= size:
        raise ValueError(
            f"{path}, row {number}: {column} is {text!r}, expected a token id below {size}: "
            "the file was made for another tokenizer"
        )
    return model.tokenizer.decode([int(text)], clean_up_tokenization_spaces=False)


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
    partner = _partners(model, rows)
    cases = [_fact(row, rows[other]) for row, other in zip(rows, partner, strict=True)]
    return built(model, name or Path(path).stem, cases, unfit=unfit)


def _fact(row: Record, other: Record) -> Case:
    start = row["prompt"].index(row["subject"])
    roles = {"subject": (start, start + len(row["subject"]))}
    words = ((f" {one['attribute']}",) for one in (row, other))
    return Case(row["prompt"], other["prompt"], *words, roles, row["relation_id"])


def _partners(model: Any, rows: Sequence[Record]) -> list[int]:
    """The row that each is corrupted with: itself, which is refused later, where there is none."""
    alike: dict[tuple[str, int, int], list[int]] = {}
    for index, row in enumerate(rows):
        prompt, subject = row["prompt"], row["subject"]
        start = prompt.index(subject)
        stop = start + len(subject)
        frame = prompt[:start] + "\0" + prompt[stop:]
        last = token_at(model.tokenizer, prompt, start, stop)
        alike.setdefault((frame, last, len(encoded(model.tokenizer, prompt))), []).append(index)
    partner = list(range(len(rows)))
    for members in alike.values():
        for place, index in enumerate(members):
            following = [*members[place + 1 :], *members[:place]]
            own = rows[index]["attribute"]
            others = (one for one in following if rows[one]["attribute"] != own)
            partner[index] = next(others, index)
    return partner
