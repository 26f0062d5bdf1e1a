"""Word pairs to prompts that show some of them and ask for one more (function-vector json)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from workbench.statistics import derive
from workbench.tasks import draw, files
from workbench.tasks.build import Case, built
from workbench.tasks.task import Task
from workbench.tasks.tokens import continuation, encoded, tokenizer_of

_SHOWN = "Q: {}\nA: {}\n\n"
_ASKED = "Q: {}\nA:"

Pair = tuple[str, str]
"""What is given, what is to be said."""


def read_function_vectors(
    model: Any,
    path: str | Path,
    *,
    prompts: int,
    seed: int,
    demonstrations: int = 5,
    name: str | None = None,
) -> Task:
    """The json of function vectors (Todd et al. 2024): pairs of input and output.

    A prompt shows `demonstrations` pairs and asks for the output of another input; 0 asks
    without any. The corrupt prompt asks about another input of as many tokens, whose output is
    the foil. Only pairs whose output is one token are asked about; `dropped` counts the others.
    Roles: query (the input's last token), END.
    """
    rows = files.records(path, ("input", "output"))
    pairs = tuple((row["input"], row["output"]) for row in rows)
    pool = _Pool(pairs, _queries(tokenizer_of(model), pairs), demonstrations)
    asked = sum(map(len, pool.queries))
    if not 0 <= demonstrations <= len(pairs) - 2:
        raise ValueError(
            f"{path}: {demonstrations} demonstrations were asked for; there are {len(pairs)} "
            "pairs, two of which a prompt and its corrupt one ask for"
        )
    if not asked:
        raise ValueError(
            f"{path}: no two of the {len(pairs)} pairs have inputs of as many tokens and "
            "different outputs of one token each for this tokenizer"
        )
    called = name or Path(path).stem
    generator = derive(seed, "function_vectors", called)
    drawn = draw.cases(["query"], pool.case, prompts=prompts, generator=generator)
    return replace(built(model, called, drawn), dropped=len(pairs) - asked)


def _queries(tokenizer: Any, pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs that can be asked for, those with inputs of equal token length together."""
    alike: dict[int, list[Pair]] = {}
    for given, said in pairs:
        output = continuation(tokenizer, _ASKED.format(given), f" {said}")
        if output is not None and len(output) == 1 and output[0] != tokenizer.unk_token_id:
            length = len(encoded(tokenizer, _ASKED.format(given)))
            alike.setdefault(length, []).append((given, said))
    return [group for group in alike.values() if len({said for _, said in group}) > 1]


@dataclass(frozen=True)
class _Pool:
    pairs: Sequence[Pair]
    queries: Sequence[Sequence[Pair]]
    demonstrations: int

    def case(self, template: str, generator: torch.Generator) -> Case:
        query = draw.one([pair for group in self.queries for pair in group], generator)
        alike = next(group for group in self.queries if query in group)
        other = draw.one([pair for pair in alike if pair[1] != query[1]], generator)
        rest = [pair for pair in self.pairs if pair[0] not in (query[0], other[0])]
        shown = "".join(
            _SHOWN.format(*pair) for pair in draw.some(rest, self.demonstrations, generator)
        )
        start = len(shown) + len(_ASKED.split("{}")[0])
        clean, corrupt = (shown + _ASKED.format(given) for given, _ in (query, other))
        roles = {"query": (start, start + len(query[0]))}
        return Case(clean, corrupt, (f" {query[1]}",), (f" {other[1]}",), roles, template)
