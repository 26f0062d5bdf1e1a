"""Is it true? What a model says of a statement that it has just read."""

from typing import Any

from workbench import words
from workbench.statistics import derive
from workbench.tasks import draw
from workbench.tasks.build import Case, built
from workbench.tasks.statements import TRUTH
from workbench.tasks.task import Task
from workbench.tasks.tokens import encoded, tokenizer_of


def verdicts(
    model: Any,
    *,
    subjects: int,
    seed: int,
    template: str = "named",
    said: tuple[str, str] = (" true", " false"),
) -> Task:
    """A true and a false statement about each country, and "This statement is" after it.

    The answer is always `said[0]`, the foil `said[1]`: the task measures which way the model leans,
    not whether it is right. The corrupt prompt is the other statement, with as many tokens; a
    country without one is left out. Groups: true, false. Roles: statement (its full stop), END.
    """
    if template not in TRUTH:
        raise ValueError(f"no template {template!r}; there are {', '.join(TRUTH)}")
    tokenizer, generator = tokenizer_of(model), derive(seed, "verdicts")
    every = list(words.CAPITALS)
    cases = []
    for country in draw.some(every, min(subjects, len(every)), generator):
        true = TRUTH[template].format(country=country, city=words.CAPITALS[country])
        others = draw.some([one for one in every if one != country], len(every), generator)
        false = _as_long(tokenizer, true, template, country, others)
        for group, one, other in (("true", true, false), ("false", false, true)):
            cases.append(
                Case(
                    f"{one} This statement is", f"{other} This statement is",
                    (said[0],), (said[1],), {"statement": (len(one) - 1, len(one))}, group,
                    problem="" if false else f"no false statement is as long as {true!r}",
                )
            )  # fmt: skip
    return built(model, "verdicts", cases, unfit="drop")


def _as_long(tokenizer: Any, true: str, template: str, country: str, others: list[str]) -> str:
    """The same statement with another country's capital, in as many tokens; nothing if none is."""
    for other in others:
        false = TRUTH[template].format(country=country, city=words.CAPITALS[other])
        if len(encoded(tokenizer, false)) == len(encoded(tokenizer, true)):
            return false
    return ""
