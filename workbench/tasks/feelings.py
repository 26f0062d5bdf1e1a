"""Pleasant and unpleasant sentences, and people whose feelings are left open."""

from typing import Any, Literal

import torch

from workbench import words
from workbench.statistics import derive
from workbench.tasks import draw
from workbench.tasks.build import Case, built, fill
from workbench.tasks.task import Task
from workbench.tasks.tokens import enough

Feeling = Literal["pleasant", "unpleasant", "neutral"]

_FRAMES = (
    "The {thing} was {how}.",
    "It was a {how} {thing}.",
    "They had a {how} {thing} last year.",
    "She said that the {thing} was {how}.",
    "What a {how} {thing}.",
)


def feelings(model: Any, *, prompts: int, seed: int) -> Task:
    """Who says what they feel? "Then Mary went to the park because she was very" happy, not sad.

    Nothing in the clean or the corrupt prompt, which is about another person, speaks for either,
    so there is no right answer: the task measures where a change moves the model. One group for
    each sentence frame. Roles: name, END.
    """
    women = enough(model, words.WOMEN, what="names", least=2)
    men = enough(model, words.MEN, what="names", least=2)
    places = enough(model, words.PLACES, what="places", least=1)
    frames = (
        "Then {name} went to the {place} because {who} was very",
        "Today {name} stayed at the {place} and {who} was so",
        "When {name} left the {place} {who} was very",
    )

    def case(frame: str, generator: torch.Generator) -> Case:
        who, names = draw.one([("she", women), ("he", men)], generator)
        one, other = draw.some(names, 2, generator)
        place = draw.one(places, generator)
        clean, spans = fill(frame, {"name": one, "place": place, "who": who})
        corrupt, _ = fill(frame, {"name": other, "place": place, "who": who})
        roles = {"name": spans["name"]}
        return Case(clean, corrupt, (" happy",), (" sad",), roles, frame)

    generator = derive(seed, "feelings")
    return built(model, "feelings", draw.cases(frames, case, prompts=prompts, generator=generator))


def feeling_sentences(feeling: Feeling, *, count: int, seed: int) -> list[str]:
    """Different sentences of one kind, all in the same frames about the same things."""
    hows = {
        "pleasant": words.PLEASANT, "unpleasant": words.UNPLEASANT, "neutral": words.PLAIN
    }  # fmt: skip
    if feeling not in hows:
        raise ValueError(f"no feeling {feeling!r}; there are {', '.join(hows)}")
    every = [
        frame.format(thing=thing, how=how)
        for frame in _FRAMES
        for thing in words.EXPERIENCES
        for how in hows[feeling]
    ]
    if not 1 <= count <= len(every):
        raise ValueError(f"{count} {feeling} sentences: there are 1 to {len(every)}")
    order = torch.randperm(len(every), generator=derive(seed, "feelings", feeling))
    return [every[at] for at in order[:count].tolist()]
