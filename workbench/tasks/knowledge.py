"""What words mean: a country's capital, the kind a thing belongs to, who a name is for.

All three ask for one word about another, and are corrupted by asking about a third one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench import words
from workbench.statistics import derive
from workbench.tasks import draw
from workbench.tasks.build import Case, built, fill
from workbench.tasks.task import Task
from workbench.tasks.tokens import enough, single, tokenizer_of

_CAPITALS = {
    "is": "The capital of {country} is",
    "city": "The capital city of {country} is called",
    "name": "The name of the capital of {country} is",
}
_KINDS = {
    "kind": "A {member} is a kind of",
    "type": "The {member} is a type of",
    "sort": "We know that every {member} is a sort of",
}
_GENDERS = {
    "because": "Everyone likes {name} because",
    "home": "When {name} went home,",
    "said": "This afternoon {name} said that",
}


def capitals(model: Any, *, prompts: int, seed: int) -> Task:
    """Capitals: "The capital of France is" Paris.

    The corrupt prompt asks about another country; the foil is that country's capital.
    Roles: country, END.
    """
    return _asked(model, "capitals", words.CAPITALS, prompts=prompts, seed=seed)


def hypernymy(model: Any, *, prompts: int, seed: int) -> Task:
    """Hypernymy: "A sparrow is a kind of" bird.

    The corrupt prompt asks about a member of another kind; the foil is that kind.
    Roles: member, END.
    """
    kind_of = {member: kind for kind, members in words.KINDS.items() for member in members}
    return _asked(model, "hypernymy", kind_of, prompts=prompts, seed=seed)


def gender(model: Any, *, prompts: int, seed: int) -> Task:
    """Pronouns: "Everyone likes Sarah because" she.

    The corrupt prompt has a name of the other gender; the foil is the other pronoun.
    Roles: name, END.
    """
    pronoun = {**dict.fromkeys(words.WOMEN, "she"), **dict.fromkeys(words.MEN, "he")}
    return _asked(model, "gender", pronoun, prompts=prompts, seed=seed)


_ASKED: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "capitals": ("country", "countries", _CAPITALS),
    "hypernymy": ("member", "words with a kind", _KINDS),
    "gender": ("name", "names", _GENDERS),
}


def _asked(model: Any, name: str, known: Mapping[str, str], *, prompts: int, seed: int) -> Task:
    role, what, templates = _ASKED[name]
    answers = set(single(tokenizer_of(model), list(dict.fromkeys(known.values()))))
    subjects = enough(model, list(known), what=what, least=2)
    pool = _Pool(role, templates, {one: known[one] for one in subjects if known[one] in answers})
    if len(set(pool.known.values())) < 2:
        raise ValueError(
            f"{len(answers)} of {len(set(known.values()))} answers of {name} are single tokens for "
            "this tokenizer, at least 2 are needed: tasks.make takes prompts of your own"
        )
    drawn = draw.cases(list(templates), pool.case, prompts=prompts, generator=derive(seed, name))
    return built(model, name, drawn)


@dataclass(frozen=True)
class _Pool:
    role: str
    templates: Mapping[str, str]
    known: Mapping[str, str]

    def case(self, template: str, generator: torch.Generator) -> Case:
        # The answer is drawn first, so that each is asked for equally often.
        answer, foil = draw.some(list(dict.fromkeys(self.known.values())), 2, generator)
        asked, other = (draw.one(self._with(one), generator) for one in (answer, foil))
        clean, spans = fill(self.templates[template], {self.role: asked})
        corrupt, _ = fill(self.templates[template], {self.role: other})
        return Case(clean, corrupt, (f" {answer}",), (f" {foil}",), spans, template)

    def _with(self, answer: str) -> Sequence[str]:
        return [one for one, its in self.known.items() if its == answer]
