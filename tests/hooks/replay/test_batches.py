"""Memory: batches that fit a budget, and what happens when it cannot be had after all."""

import re

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, edits, replay
from hooks.replay import Reads
from hooks.replay.planning import size
from hooks.replay.recording import Recording

LENGTHS = torch.tensor([7, 5, 3])
PROMPTS = Prompts(torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(1)), LENGTHS)
CELLS = [
    {Site(stream, layer): edits.zero(positions=position)}
    for stream in ("resid_pre", "z", "neuron")
    for layer in (0, 1)
    for position in (2, torch.tensor([6, 4, 2]))
]


@pytest.mark.parametrize(
    ("said", "size_in_bytes"),
    [
        ("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5kb", 1500), (" 64 B ", 64),
        ("0.25TB", 25 * 10**10), (12345, 12345),
    ],
)  # fmt: skip
def test_a_memory_size_is_a_number_of_bytes_or_a_number_with_a_unit(said, size_in_bytes):
    assert size(said) == size_in_bytes


@pytest.mark.parametrize("said", ["2", "lots", "2GiB", "-1GB", "GB", "", "1.2.3GB", ".MB", "2 G"])
def test_what_is_no_size_is_refused_with_an_example(said):
    with pytest.raises(
        ValueError, match=rf"memory {re.escape(repr(said))} is no size: write '2GB'"
    ):
        size(said)


@pytest.mark.parametrize("architecture", ["Llama", "Gemma 2"])
@pytest.mark.parametrize("rows", ["last", "all"])
def test_small_batches_give_the_same_numbers(twin, replayed, architecture, rows):
    model, reads = twin(architecture), Reads(rows)
    whole = replayed(model, PROMPTS, CELLS, reads)
    one = replay.plan(model, PROMPTS, CELLS, reads=reads, most=1).bytes
    small = replayed(model, PROMPTS, CELLS, reads, memory=one)
    single = replayed(model, PROMPTS, CELLS, reads, most=1)
    assert len(whole.plan.batches) == 1 and len(small.plan.batches) > 3
    assert len(single.plan.batches) == len(CELLS)
    assert small.plan.bytes <= one < whole.plan.bytes
    for found in (small, single):
        assert [cell for batch in found.plan.batches for cell in batch] == list(range(len(CELLS)))
        assert found.sent == whole.sent == whole.plan.block_tokens
        assert_close(found.logits, whole.logits, rtol=1e-5, atol=1e-5)


def test_calls_of_few_tokens_give_the_same_numbers(twin, replayed, watching, monkeypatch):
    model = twin("Llama")
    whole = replayed(model, PROMPTS, CELLS)
    monkeypatch.setattr("hooks.replay.planning._TOKENS_AT_ONCE", {"cpu": 10})
    with watching(model) as calls:
        parts = replayed(model, PROMPTS, CELLS, check=0)
    assert max(rows * positions for _, rows, positions in calls[2:]) <= 10
    assert_close(parts.logits, whole.logits, rtol=1e-5, atol=1e-5)


def test_a_budget_that_one_cell_does_not_fit_is_an_error_with_numbers_that_helps(twin):
    model = twin("Llama")
    with pytest.raises(MemoryError, match=r"memory 1 MB is too small for one cell") as caught:
        replay.plan(model, PROMPTS, CELLS, memory="1MB")
    advised = re.search(r"give memory=([\w.]+) or fewer prompts", str(caught.value))
    assert advised
    plan = replay.plan(model, PROMPTS, CELLS, memory=advised[1])
    assert len(plan.works) == len(CELLS)
    assert size(advised[1]) - replay.plan(model, PROMPTS, CELLS, most=1).bytes < 10**6


def refusing(monkeypatch, error: Exception, *, most: int):
    """Calls of more than `most` rows cannot have their memory."""
    real = Recording.run_block

    def run_block(self, layer, hidden, **how):
        if len(hidden) > most:
            raise error
        return real(self, layer, hidden, **how)

    monkeypatch.setattr(Recording, "run_block", run_block)


SHORTAGES = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
                 "allocate memory: you tried to allocate 8589934592 bytes. Error code 12"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes."),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
]  # fmt: skip


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_a_batch_that_gets_no_memory_is_halved_and_that_is_written_down(
    twin, replayed, monkeypatch, error
):
    model = twin("Llama")
    whole = replayed(model, PROMPTS, CELLS)
    with monkeypatch.context() as patch:
        refusing(patch, error, most=9)
        halved = replayed(model, PROMPTS, CELLS)
    assert halved.trail.backoffs[0] == "no memory for 12 cells at once: halved"
    assert halved.trail.checked.keys() == whole.trail.checked.keys()
    assert_close(halved.logits, whole.logits, rtol=1e-5, atol=1e-5)


def test_one_cell_that_gets_no_memory_is_the_error_it_was(twin, replayed, monkeypatch):
    refusing(monkeypatch, SHORTAGES[0], most=2)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        replayed(twin("Llama"), PROMPTS, CELLS)


def test_another_error_is_not_taken_for_a_shortage(twin, replayed, monkeypatch):
    refusing(monkeypatch, RuntimeError("something else"), most=2)
    with pytest.raises(RuntimeError, match="something else"):
        replayed(twin("Llama"), PROMPTS, CELLS)


@pytest.mark.parametrize("architecture", ["GPT-2", "Gemma 3"])
def test_a_cell_gives_the_same_in_whatever_company_and_order(twin, replayed, architecture):
    model = twin(architecture)
    whole = replayed(model, PROMPTS, CELLS)
    order = torch.randperm(len(CELLS), generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = replayed(model, PROMPTS, [CELLS[index] for index in order])
    for place, index in enumerate(order):
        assert_close(shuffled.logits[place], whole.logits[index], rtol=1e-5, atol=1e-5)
        alone = replayed(model, PROMPTS, [CELLS[index]])
        assert_close(alone.logits[0], whole.logits[index], rtol=1e-5, atol=1e-5)


def turned(cell, order):
    """The cell for prompts in another order."""
    [(site, edit)] = cell.items()
    at = edit.positions
    return {site: edits.zero(positions=at[order] if isinstance(at, torch.Tensor) else at)}


def test_prompts_in_another_order_give_the_same_in_that_order(twin, replayed):
    model, order = twin("GPT-NeoX, sequential"), torch.tensor([2, 0, 1])
    whole = replayed(model, PROMPTS, CELLS)
    prompts = Prompts(PROMPTS.tokens[order], LENGTHS[order])
    found = replayed(model, prompts, [turned(cell, order) for cell in CELLS])
    for logits, before in zip(found.logits, whole.logits, strict=True):
        assert_close(logits, before[order], rtol=1e-5, atol=1e-5)


def test_the_same_call_gives_the_same_bits(twin, replayed):
    first, second = (replayed(twin("Qwen 3"), PROMPTS, CELLS) for _ in range(2))
    assert_close(first.logits, second.logits, rtol=0, atol=0)
    assert first.trail.checked == second.trail.checked
