"""How often heads are called significant where, by construction, none is.

A model with random weights is no such case: to ablate one of its heads does change the metric of
the prompts that were drawn. Answers and foils are exchanged at random instead, prompt by prompt,
so that every change is as likely to be up as down.
"""

import dataclasses

import pytest
import torch

from workbench import heads, metrics, models, tasks


def exchanged(task, seed):
    """The task with the answer and the foil of about half of its prompts in each other's place."""
    swap = torch.rand(len(task), 1, generator=torch.Generator().manual_seed(seed)) < 0.5
    return dataclasses.replace(
        task,
        answer=torch.where(swap, task.foil, task.answer),
        foil=torch.where(swap, task.answer, task.foil),
    )


def families(name, count, prompts=12):
    """Random weights and random answers, one after the other."""
    model = models.load(name)
    with models.redrawn(model) as draw:
        for seed in range(count):
            draw(seed)
            yield model, exchanged(tasks.ioi(model, prompts=prompts, seed=seed), seed), seed


@pytest.mark.parametrize("ablation", ["zero", "mean"])
@pytest.mark.parametrize("name", ["tiny", "tiny-gqa"])
def test_ablated_heads_are_significant_in_one_family_of_twenty_where_answers_say_nothing(
    most_by_chance, name, ablation
):
    wrong = 0
    for model, task, seed in families(name, 20):
        found = heads.ablate_each(
            model, task, metric=metrics.logit_diff, ablation=ablation, seed=seed
        )
        wrong += bool(found.significant(0.05))
    assert wrong <= most_by_chance(20)


def test_stand_ins_are_found_in_one_family_of_twenty_where_answers_say_nothing(most_by_chance):
    some, wrong = [(0, 0), (0, 2), (1, 1)], 0
    for model, task, seed in families("tiny-gqa", 20):
        found = heads.substitute(model, task, heads=some, metric=metrics.logit_diff, seed=seed)
        wrong += bool((found.p <= 0.05).any())
    assert wrong <= most_by_chance(20)
