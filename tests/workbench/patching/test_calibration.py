"""How often patching calls something significant where, by construction, nothing is.

A model with random weights is not enough: to patch it does change the metric of the prompts that
were drawn. Answers and foils are exchanged at random as well, prompt by prompt, so that every
change is as likely to be up as down.
"""

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from hooks import Site
from workbench import metrics, models, patching, tasks
from workbench.patching import Noise
from workbench.tasks import Task

pytestmark = pytest.mark.slow

DIFF = metrics.logit_diff
FAMILIES = 20


def exchanged(task: Task, seed: int) -> Task:
    """The task with the answer and the foil of about half of its prompts in each other's place."""
    swap = torch.rand(len(task), 1, generator=torch.Generator().manual_seed(seed)) < 0.5
    return dataclasses.replace(
        task,
        answer=torch.where(swap, task.foil, task.answer),
        foil=torch.where(swap, task.answer, task.foil),
    )


def families(name: str) -> Iterator[tuple[models.Model, Task, int]]:
    """Random weights and random answers, one after the other."""
    model = models.load(name)
    with models.redrawn(model) as draw:
        for seed in range(FAMILIES):
            draw(seed)
            yield model, exchanged(tasks.ioi(model, prompts=12, seed=seed), seed), seed


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize(
    ("stream", "over", "source"),
    [
        ("resid_pre", "role", "counterfactual"),
        ("z", "head", "counterfactual"),
        ("z", "head", "resample"),
        ("v", "head", "mean per position"),
    ],
)
def test_places_are_significant_in_one_sweep_of_twenty_where_answers_say_nothing(
    most_by_chance, stream, over, source, direction
):
    wrong = 0
    for model, task, seed in families("tiny-gqa"):
        found = patching.sweep(
            model, task, stream, metric=DIFF, over=over, direction=direction, source=source,
            seed=seed,
        )  # fmt: skip
        wrong += bool(found.significant(0.05))
    assert wrong <= most_by_chance(FAMILIES)


@pytest.mark.parametrize("to", ["logits", (Site("v", 1), 0)])
def test_senders_are_significant_in_one_family_of_twenty_where_answers_say_nothing(
    most_by_chance, to
):
    wrong = 0
    for model, task, seed in families("tiny-gqa"):
        running = patching.Running(seed=seed)
        found = patching.paths(model, task, to=to, metric=DIFF, running=running)
        wrong += bool((found.p <= 0.05).any() or (found.mlp_p <= 0.05).any())
    assert wrong <= most_by_chance(FAMILIES)


@pytest.mark.parametrize("stream", ["resid_pre", "mlp_out"])
def test_restored_states_are_significant_in_one_family_of_twenty_where_answers_say_nothing(
    most_by_chance, stream
):
    wrong = 0
    for model, task, seed in families("tiny-gqa"):
        found = patching.causal_tracing(
            model, task, stream, metric=DIFF, noise=Noise("S2", draws=2, seed=seed),
            running=patching.Running(seed=seed),
        )  # fmt: skip
        wrong += bool(found.significant(0.05))
    assert wrong <= most_by_chance(FAMILIES)
