"""Whether a model does its task."""

import math
import sys

import pytest
import torch

from workbench import tasks
from workbench.statistics import Estimate
from workbench.tasks import Solved


class Answering:
    """Prefers the answer by `lead` nats on the first prompts and the foil on the others."""

    def __init__(self, task, *, right, lead):
        logits = torch.zeros(len(task), 1, 2000)
        for row in range(len(task)):
            logits[row, 0, task.answer[row, 0]] = lead if row < right else -lead
        self.logits, self.seen = logits, 0


@pytest.fixture
def answering(monkeypatch):
    def last_logits(model, prompts):
        start, model.seen = model.seen, model.seen + len(prompts)
        return model.logits[start : model.seen]

    monkeypatch.setattr(sys.modules["workbench.tasks.solved"], "last_logits", last_logits)


def test_accuracy_counts_and_the_difference_is_a_mean(tiny, answering, unchecked_types):
    task = tasks.ioi(tiny, prompts=20, seed=0)
    found = tasks.solved(Answering(task, right=15, lead=2.0), task, batch_size=8)
    assert found.accuracy.value == 0.75
    assert found.accuracy.n == 20
    assert found.logit_difference.value == pytest.approx((15 * 2 - 5 * 2) / 20)
    # 15 of 20: Clopper and Pearson's bounds, from their tables.
    assert found.accuracy.low == pytest.approx(0.509, abs=1e-3)


def test_sets_of_answers_are_summed(tiny, answering, unchecked_types):
    task = tasks.greater_than(tiny, prompts=8, seed=0)
    found = tasks.solved(Answering(task, right=0, lead=0.0), task)
    # With equal logits the difference is the log of how many answers there are for one foil.
    answers, foils = (task.answer >= 0).sum(1), (task.foil >= 0).sum(1)
    expected = (answers.double() / foils).log().mean().item()
    assert found.logit_difference.value == pytest.approx(expected, abs=1e-6)


def test_a_model_that_prefers_neither_is_not_said_to_be_right(tiny, answering, unchecked_types):
    task = tasks.ioi(tiny, prompts=10, seed=0)
    found = tasks.solved(Answering(task, right=10, lead=0.0), task)
    assert found.accuracy.value == 0
    assert not found.is_solved


def test_batches_do_not_matter(small):
    task = tasks.ioi(small, prompts=10, seed=0)
    one, other = (tasks.solved(small, task, batch_size=size) for size in (3, 10))
    assert math.isclose(one.logit_difference.value, other.logit_difference.value, rel_tol=1e-5)
    assert one.accuracy == other.accuracy


def estimates(low, lead):
    accuracy = Estimate(0.9, low, 0.95, 40)
    return Solved("m", "t", accuracy, Estimate(lead + 1, lead, lead + 2, 40))


def test_a_task_is_solved_when_both_lower_bounds_are_above_chance():
    assert estimates(0.51, 0.01).is_solved
    assert not estimates(0.5, 0.01).is_solved
    assert not estimates(0.51, 0.0).is_solved


def test_it_says_so_in_words():
    assert estimates(0.8, 1.0).sentence() == (
        "m solves t: the answer is likelier than the foil on 90% of 40 prompts [80%, 95%], "
        "by +2.00 nats [+1.00, +3.00]."
    )
    assert "m is not shown to do better than chance on t" in estimates(0.4, 1.0).sentence()
    assert "may explain noise" in estimates(0.4, 1.0).sentence()


def test_the_random_model_does_not_solve_ioi(tiny):
    assert not tasks.solved(tiny, tasks.ioi(tiny, prompts=64, seed=0)).is_solved


# Measured on the default model with 64 prompts and seed 0; the bands are loose.
MEASURED = {
    "ioi": (0.95, 3.5, 7.0),
    "induction": (0.85, 6.0, 13.0),
    "greater_than": (0.95, 3.0, 5.5),
    "agreement": (0.80, 1.0, 3.0),
    "capitals": (0.95, 7.5, 12.0),
    "hypernymy": (0.90, 4.0, 8.0),
    "gender": (0.95, 1.8, 4.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_the_default_model_solves(default_model, name):
    accuracy, low, high = MEASURED[name]
    task = getattr(tasks, name)(default_model, prompts=64, seed=0)
    found = tasks.solved(default_model, task)
    assert found.is_solved
    assert found.accuracy.value >= accuracy
    assert low < found.logit_difference.value < high


@pytest.mark.parametrize(
    ("corruption", "clean", "corrupt"), [("swap", (3, 7), (-7, -3)), ("third", (3, 7), (-1.5, 1.5))]
)
def test_ioi_turns_the_default_model_as_its_corruption_says(
    default_model, corruption, clean, corrupt
):
    task = tasks.ioi(default_model, prompts=12, seed=0, corruption=corruption)
    for one, (low, high) in ((task, clean), (task.swapped(), corrupt)):
        assert low < tasks.solved(default_model, one).logit_difference.value < high


@pytest.mark.slow
def test_swapped_names_turn_the_default_model_around(default_model):
    task = tasks.ioi(default_model, prompts=64, seed=0)
    found = tasks.solved(default_model, task.swapped())
    assert -7 < found.logit_difference.value < -3.5


@pytest.mark.slow
def test_third_names_leave_the_default_model_without_a_preference(default_model):
    task = tasks.ioi(default_model, prompts=64, seed=0, corruption="third")
    found = tasks.solved(default_model, task.swapped())
    assert abs(found.logit_difference.value) < 1
