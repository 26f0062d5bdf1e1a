"""Test suites of SyntaxGym (Gauthier et al. 2020): items in conditions, cut into regions."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from hooks import Prompts
from workbench.models.text import checked
from workbench.tasks.alignment import align
from workbench.tasks.build import Span, UnfitError
from workbench.tasks.tokens import tokenizer_of


@dataclass(frozen=True, eq=False)
class RegionSuite:
    """One sentence for each item and condition, and the tokens of each of its regions.

    prompts       item after item, each in all conditions
    first, last   the tokens of a region; a token of two regions belongs to the former. Where a
                  region is empty, first is one more than last
    predictions   formulas of the suite, such as "(5;%match%) < (5;%mismatch%)"
    """

    name: str
    prompts: Prompts
    conditions: tuple[str, ...]
    regions: tuple[str, ...]
    predictions: tuple[str, ...]
    first: Int[Tensor, "item condition region"]
    last: Int[Tensor, "item condition region"]

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.first)


def read_syntaxgym(model: Any, path: str | Path, *, name: str | None = None) -> RegionSuite:
    """A SyntaxGym suite: json with meta, region_meta, predictions and items.

    Regions are summed, which is what `meta.metric` says in published suites; a suite that says
    otherwise, predictions that are no formulas and regions not counted from 1 are refused.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    for key in ("items", "predictions"):
        if not content.get(key):
            raise ValueError(f"{path}: {key!r} is missing or empty; there are {', '.join(content)}")
    _check_meant(path, content)
    items = content["items"]
    conditions = [one["condition_name"] for one in items[0]["conditions"]]
    numbers = [one["region_number"] for one in items[0]["conditions"][0]["regions"]]
    names = {str(number): str(word) for number, word in content.get("region_meta", {}).items()}
    texts, spans = [], []
    for number, item in enumerate(items):
        by_name = {one["condition_name"]: one["regions"] for one in item["conditions"]}
        for condition in conditions:
            where = f"{path}, item {number}, condition {condition!r}"
            text, places = _joined(by_name.get(condition), numbers, where)
            texts.append(text)
            spans.append(places)
    ids, first, last = _tokens(tokenizer_of(model), path, texts, spans)
    shape = (len(items), len(conditions), len(numbers))
    formulas = tuple(one["formula"] for one in content["predictions"])
    return RegionSuite(
        name or str(content.get("meta", {}).get("name") or Path(path).stem),
        checked(model, ids, texts), tuple(conditions),
        tuple(names.get(str(number), str(number)) for number in numbers), formulas,
        torch.tensor(first).reshape(shape), torch.tensor(last).reshape(shape),
    )  # fmt: skip


def _check_meant(path: str | Path, content: Any) -> None:
    """Refused: what would be read as something else than the suite says."""
    metric = content.get("meta", {}).get("metric", "sum")
    if metric not in ("sum", ""):
        raise ValueError(
            f"{path}: the suite asks for the {metric!r} of a region's surprisals; only their sum "
            "is measured here"
        )
    for number, one in enumerate(content["predictions"]):
        if one.get("type", "formula") != "formula" or "formula" not in one:
            raise ValueError(f"{path}, prediction {number}: expected type 'formula', got {one}")
    numbers = [one["region_number"] for one in content["items"][0]["conditions"][0]["regions"]]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(
            f"{path}, item 0: regions are numbered {numbers}; formulas count them from 1"
        )


def _joined(regions: Any, numbers: list[int], where: str) -> tuple[str, list[Span | None]]:
    """The sentence, and where each region stands in it; empty regions stand nowhere."""
    if regions is None or [one["region_number"] for one in regions] != numbers:
        raise ValueError(f"{where}: expected regions {numbers}, like the first item's")
    text, spans = "", []
    for one in regions:
        content = one["content"].strip()
        if not content:
            spans.append(None)
            continue
        text += " " if text else ""
        spans.append((len(text), len(text) + len(content)))
        text += content
    if not text:
        raise ValueError(f"{where}: all regions are empty")
    return text, spans


def _tokens(
    tokenizer: Any, path: str | Path, texts: list[str], spans: list[list[Span | None]]
) -> tuple[list[list[int]], list[int], list[int]]:
    ids, first, last = [], [], []
    for text, places in zip(texts, spans, strict=True):
        try:
            row, found = align(tokenizer, text, [one for one in places if one is not None])
        except UnfitError as problem:
            raise ValueError(f"{path}, {text[:60]!r}: {problem}") from None
        ids.append(row)
        taken = iter(found)
        free = 0
        for place in places:
            low, high = (free, free - 1) if place is None else next(taken)
            first.append(max(low, free))
            last.append(high)
            free = max(free, high + 1)
    return ids, first, last
