"""CoNLL-U files (Universal Dependencies): sentences with parts of speech and trees."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from workbench.tasks.build import Span, Unfit
from workbench.tasks.labelled import ROOT, LabelledWords, Sentence, labelled

Column = Literal["upos", "xpos", "deprel"]
Grouping = Literal["document", "sentence"]

_COLUMNS = {"upos": 3, "xpos": 4, "deprel": 7}


@dataclass
class _Block:
    """The lines of one sentence, and where they stand."""

    start: int
    comments: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[int, list[str]]] = field(default_factory=list)


def read_conllu(
    model: Any,
    path: str | Path,
    *,
    label: Column = "upos",
    group: Grouping = "document",
    sentences: int | None = None,
    name: str | None = None,
    unfit: Unfit = "refuse",
) -> LabelledWords:
    """The words of a CoNLL-U file, labelled by part of speech or relation, with their trees.

    label   "upos", "xpos" or "deprel" (without its subtype: nmod, not nmod:poss)
    group   "document": sentences between two `# newdoc` lines hang together (each alone, where
            there is no such line); "sentence": each by itself
    sentences   only the first so many; none given: all

    Words of a multiword token ("don't": do, n't) are found in it where they spell it, else all
    of them stand at the whole of it. Empty nodes (8.1) are left out.
    """
    if label not in _COLUMNS:
        raise ValueError(f"no label {label!r}; there are {', '.join(_COLUMNS)}")
    if group not in ("document", "sentence"):
        raise ValueError(f'group is "document" or "sentence", not {group!r}')
    if sentences is not None and sentences < 1:
        raise ValueError(f"{sentences} sentences of {path} were asked for: take 1 or more")
    document, found = "", []
    for number, block in enumerate(islice(_blocks(Path(path)), sentences)):
        document = block.comments.get("newdoc id", block.comments.get("newdoc", document))
        named = document if group == "document" else f"sentence {number}"
        found.append(_sentence(path, block, label, named))
    if not found:
        raise ValueError(f"{path}: there are no sentences; expected CoNLL-U, ten columns a word")
    return labelled(model, name or Path(path).stem, found, unfit=unfit)


def _blocks(path: Path) -> Iterator[_Block]:
    block = _Block(1)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate([*lines, ""], start=1):
        if not line.strip():
            if block.rows:
                yield block
            block = _Block(number + 1)
        elif line.startswith("#"):
            key, _, value = line.removeprefix("#").partition("=")
            block.comments[key.strip()] = value.strip()
        else:
            columns = line.split("\t")
            if len(columns) != 10:
                raise ValueError(
                    f"{path}, line {number}: {len(columns)} columns where CoNLL-U has 10, "
                    f"separated by tabs: {line[:60]!r}"
                )
            block.rows.append((number, columns))


def _sentence(path: str | Path, block: _Block, label: Column, group: str) -> Sentence:
    surface, words = _surface(path, block), []
    text = block.comments.get("text") or _joined(surface)
    spans: dict[str, Span] = {}
    at = 0
    for line, form, _, members in surface:
        start = text.find(form, at)
        if start < 0 or text[at:start].strip():
            raise ValueError(
                f"{path}, line {line}: {form!r} does not come next in the text of its sentence, "
                f"which goes on {text[at : at + 30]!r}"
            )
        at = start + len(form)
        spans |= _parts(form, start, members)
    words = [columns for _, columns in block.rows if columns[0].isdecimal()]
    place = {columns[0]: index for index, columns in enumerate(words)}
    place["0"] = ROOT
    heads = []
    for line, columns in block.rows:
        if columns[0].isdecimal():
            if columns[6] not in place:
                raise ValueError(
                    f"{path}, line {line}: the head of {columns[1]!r} is {columns[6]!r}, which is "
                    "no word of the sentence"
                )
            heads.append(place[columns[6]])
    labels = [columns[_COLUMNS[label]].split(":")[0] for columns in words]
    where = f"{path}, sentence at line {block.start}"
    return Sentence(text, [spans[one[0]] for one in words], labels, heads, group, where)


_Surface = tuple[int, str, bool, list[tuple[str, str]]]
"""Line, what is written, whether a space follows, and the words (number, form) it consists of."""


def _surface(path: str | Path, block: _Block) -> list[_Surface]:
    """What is written, in order: words, and multiword tokens in place of theirs."""
    found: list[_Surface] = []
    until = 0
    for line, columns in block.rows:
        number, form = columns[0], columns[1]
        spaced = "SpaceAfter=No" not in columns[9]
        if "." in number:
            continue
        first, _, last = number.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise ValueError(f"{path}, line {line}: {number!r} is no number of a word")
        if last:
            until = int(last)
            inside = range(int(first), until + 1)
            found.append((line, form, spaced, [(str(one), "") for one in inside]))
        elif int(number) <= until:
            members = found[-1][3]
            members[members.index((number, ""))] = (number, form)
        else:
            found.append((line, form, spaced, [(number, form)]))
    return found


def _joined(surface: list[_Surface]) -> str:
    return "".join(form + " " * spaced for _, form, spaced, _ in surface).rstrip()


def _parts(form: str, start: int, members: list[tuple[str, str]]) -> dict[str, Span]:
    """The characters of each word of what is written."""
    whole = (start, start + len(form))
    if "".join(word for _, word in members).lower() != form.lower():
        return {number: whole for number, _ in members}
    found, at = {}, start
    for number, word in members:
        found[number] = (at, at + len(word))
        at += len(word)
    return found
