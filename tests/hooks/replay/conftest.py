"""The naive route to the same numbers, and what a replay left behind."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from hooks import Prompts, Site, edits, intervening, last_logits, replay
from hooks.replay import Plan, Reads, Trail
from hooks.replay.tape import Tape
from workbench import models
from workbench.models import twins


@cache
def _twin(architecture: str) -> models.Model:
    return twins.make(architecture)[0]


@pytest.fixture(scope="session")
def twin() -> Callable[[str], models.Model]:
    """`twin("Llama")`: made once."""
    return _twin


def _chosen(logits: Tensor, reads: Reads) -> Tensor:
    if reads.columns is None:
        return logits
    ids = reads.columns.clamp(min=0)[:, None].expand(-1, logits.shape[1], -1)
    return logits.gather(2, ids)


@torch.no_grad()
def _naive(model, prompts: Prompts, cell, reads: Reads) -> Tensor:
    if not cell:
        found = last_logits(model, prompts) if reads.rows == "last" else model(prompts)
        return _chosen(found, reads)
    with intervening(model, cell):
        return _naive(model, prompts, None, reads)


@pytest.fixture(scope="session")
def naive():
    """`naive(model, prompts, cell, reads)`: the logits by one full forward pass."""
    return _naive


def _flat(rows: Tensor, logits: Tensor) -> Tensor:
    return logits.flatten(1)


@dataclass
class Replayed:
    """The logits of every cell, and how they were come by."""

    plan: Plan
    trail: Trail
    logits: list[Tensor]
    base: Tensor
    sent: int = 0  # tokens through a block, as the run itself counts them


def _replayed(model, prompts, cells, reads=None, **how) -> Replayed:
    reads = reads or Reads()
    plan = replay.plan(model, prompts, cells, reads=reads, **how)
    found = Replayed(plan, Trail(), [], torch.zeros(0))

    def count(tokens: int) -> None:
        found.sent += tokens

    found.trail.advance = count
    length = 1 if reads.rows == "last" else plan.recording.prompts.tokens.shape[1]
    base = replay.recorded(plan, _flat)
    values = base[None].repeat(len(cells), 1, 1)
    for batch in plan.batches:
        answers = replay.run(plan, batch, _flat, trail=found.trail)
        values[answers.cells, answers.prompts] = answers.values
    shape = (len(base), length, -1)
    found.base = base.reshape(shape)
    found.logits = [value.reshape(shape) for value in values]
    return found


@pytest.fixture(scope="session")
def replayed():
    """`replayed(model, prompts, cells, reads, **how)`: every cell by replay."""
    return _replayed


@contextmanager
def _watching(model) -> Iterator[list[tuple[int, int, int]]]:
    replay.plan(model, torch.tensor([[3, 4, 5]]), [{Site("resid_pre", 0): edits.zero()}])
    calls: list[tuple[int, int, int]] = []
    handles = []
    for layer, block in enumerate(model.blocks):

        def note(module, args, kwargs, layer=layer):
            hidden = args[0] if args else kwargs["hidden_states"]
            tapes = [one for one in (*args, *kwargs.values()) if isinstance(one, Tape)]
            if all(tape.held is None for tape in tapes):
                calls.append((layer, hidden.shape[0], hidden.shape[1]))

        handles.append(block.register_forward_pre_hook(note, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@pytest.fixture(scope="session")
def watching() -> Callable[..., AbstractContextManager[list[tuple[int, int, int]]]]:
    """`with watching(model) as calls:` (layer, rows, positions) of all that enters a block.

    What the model allows is found out before. What goes through the last block again, at the row
    that is read alone, is not counted twice.
    """
    return _watching
