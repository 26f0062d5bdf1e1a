"""Sweeps that are interrupted, repeated and changed: what is reused, and what never is."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from hooks import Prompts, Site, edits, last_logits, replay
from workbench import effects, metrics
from workbench.metrics import Metric
from workbench.models import Model, twins
from workbench.tasks import Task

VALUE = torch.randn(32, generator=torch.Generator().manual_seed(0))


def cells_of(value=VALUE, *, heads=(1,), positions=(2, 0), strength=1.0):
    """Ten cells that all change something, of which three work on the same value."""
    cells = [{Site("resid_pre", 1): edits.add(value, strength=strength)}]
    cells += [{Site("mlp_out", n): edits.mean(value, positions=list(positions))} for n in (0, 1)]
    cells += [{Site("z", n): edits.zero(heads=[h])} for n in (0, 1) for h in (heads[0], 3)]
    cells += [{Site("v", n): [edits.scale(0.5), edits.scale(3.0)]} for n in (0, 1)]
    return [*cells, {Site("q", 0): edits.zero(), Site("k", 1): edits.zero()}]


@pytest.fixture(scope="session", name="cells_of")
def _cells_of():
    return cells_of


@pytest.fixture(autouse=True)
def two_cells_a_batch(monkeypatch):
    monkeypatch.setattr(sys.modules["workbench.effects.exact"], "_CELLS_A_BATCH", 2)


@pytest.fixture
def ran(monkeypatch) -> list[tuple[int, ...]]:
    """The batches that were carried out, in order."""
    batches: list[tuple[int, ...]] = []
    real = replay.run

    def run(plan, batch, *rest, **named):
        found = real(plan, batch, *rest, **named)
        batches.append(tuple(batch))
        return found

    monkeypatch.setattr(replay, "run", run)
    return batches


@dataclass
class Sweep:
    """All that a result depends on."""

    model: Model
    task: Task
    cells: list
    metrics: list[Metric]
    run: str = "clean"

    def __call__(self, keep=None, **how) -> effects.Effects:
        how = {"metrics": self.metrics, "run": self.run, "keep": keep, **how}
        return effects.exact(self.model, self.task, self.cells, **how)


@pytest.fixture(scope="module")
def model():
    return twins.make("Llama")[0]


@pytest.fixture
def sweep(model, padded) -> Sweep:
    reference = last_logits(model, padded.corrupt)[:, 0]
    return Sweep(model, padded, cells_of(), [metrics.logit_diff, metrics.minus_kl(reference)])


def other_weights(sweep: Sweep) -> Sweep:
    return replace(sweep, model=twins.make("Llama", seed=1)[0])


def one_weight_changed_in_place(sweep: Sweep) -> Sweep:
    model = twins.make("Llama")[0]
    model.blocks[1].mlp.out.weight.data[0, 0] += 1
    return replace(sweep, model=model)


def other_precision(sweep: Sweep) -> Sweep:
    model = twins.make("Llama")[0]
    model.to(torch.float64)
    cells = cells_of(VALUE.double())
    return replace(sweep, model=model, cells=cells, metrics=[metrics.logit_diff, metrics.accuracy])


def with_task(**change: Callable[[Task], object]) -> Callable[[Sweep], Sweep]:
    def changed(sweep: Sweep) -> Sweep:
        task = replace(sweep.task, **{name: do(sweep.task) for name, do in change.items()})
        return replace(sweep, task=task)

    return changed


def with_cells(**change) -> Callable[[Sweep], Sweep]:
    return lambda sweep: replace(sweep, cells=cells_of(**change))


def other_tokens(task: Task) -> Prompts:
    tokens = task.clean.tokens.clone()
    tokens[0, 0] += 1
    return Prompts(tokens, task.clean.lengths)


def other_reference(sweep: Sweep) -> Sweep:
    reference = last_logits(sweep.model, sweep.task.clean)[:, 0] + 0.5 * VALUE[0]
    reference[0, 3] += 1
    return replace(sweep, metrics=[metrics.logit_diff, metrics.minus_kl(reference)])


def own_value_written_to(sweep: Sweep) -> Sweep:
    value = VALUE.clone()
    value[0] += 1e-6
    return replace(sweep, cells=cells_of(value))


CHANGES = {
    "other weights": (other_weights, range(10)),
    "a weight changed in place": (one_weight_changed_in_place, range(10)),
    "another precision": (other_precision, range(10)),
    "other tokens": (with_task(clean=other_tokens), range(10)),
    "other answers": (with_task(answer=lambda task: task.answer + 1), range(10)),
    "other foils": (with_task(foil=lambda task: task.foil + 1), range(10)),
    "the corrupt prompts": (lambda sweep: replace(sweep, run="corrupt"), range(10)),
    "fewer metrics": (lambda sweep: replace(sweep, metrics=sweep.metrics[:1]), range(10)),
    "metrics in another order": (
        lambda sweep: replace(sweep, metrics=sweep.metrics[::-1]), range(10),
    ),
    "another reference": (other_reference, range(10)),
    "another value": (own_value_written_to, range(3)),
    "another strength": (with_cells(strength=2.0), [0]),
    "other positions": (with_cells(positions=(2, 1)), [1, 2]),
    "other heads": (with_cells(heads=(2,)), [3, 5]),
}  # fmt: skip


@pytest.fixture(scope="session", name="CHANGES")
def _changes():
    return CHANGES


@pytest.fixture(params=CHANGES)
def what(request) -> str:
    return request.param
