"""Memory: batches that fit a budget, and what happens when it cannot be had after all."""

import re

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, edits, replay
from hooks.replay import Reads
from hooks.replay.memory import said, size
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


@pytest.mark.parametrize(
    "given", ["2", "lots", "2GiB", "-1GB", "GB", "", "1.2.3GB", ".MB", "2 G", 2e9, None, True]
)
def test_what_is_no_size_is_refused_with_an_example(unchecked_types, given):
    said_again = re.escape(repr(given))
    with pytest.raises(ValueError, match=rf"memory {said_again} is no size: write '2GB', '500MB'"):
        size(given)


@pytest.mark.parametrize("given", [0, -5, "0GB", "0.1B"])
def test_no_memory_at_all_is_refused(given):
    with pytest.raises(ValueError, match=r"memory (0|-5) leaves nothing to work with: write"):
        size(given)


@pytest.mark.parametrize(
    ("count", "read"), [(7, "7 B"), (1999, "2 KB"), (2_400_000, "2 MB"), (1_230_000_000, "1.23 GB")]
)
def test_sizes_are_said_in_a_unit_in_which_they_are_not_nothing(count, read):
    assert said(count) == read


def least(model, cells, **how) -> str:
    """The budget that the error of one that is too small advises."""
    with pytest.raises(MemoryError, match=r"memory 1 B is too small for one cell") as caught:
        replay.plan(model, PROMPTS, cells, memory=1, **how)
    advised = re.search(r"give memory=(\w+) or fewer prompts", str(caught.value))
    assert advised
    return advised[1]


@pytest.mark.parametrize("architecture", ["Llama", "Gemma 2"])
@pytest.mark.parametrize("rows", ["last", "all"])
def test_small_batches_give_the_same_numbers(twin, replayed, architecture, rows):
    model, reads = twin(architecture), Reads(rows)
    whole = replayed(model, PROMPTS, CELLS, reads)
    one = least(model, CELLS, reads=reads)
    small = replayed(model, PROMPTS, CELLS, reads, memory=one)
    single = replayed(model, PROMPTS, CELLS, reads, most=1)
    assert len(whole.plan.batches) == 1 and len(small.plan.batches) > 2
    assert len(single.plan.batches) == len(CELLS)
    assert small.plan.bytes <= size(one) < whole.plan.bytes
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


@pytest.mark.parametrize("rows", ["last", "all"])
def test_a_budget_that_one_cell_does_not_fit_is_an_error_that_says_which_would_do(twin, rows):
    model, reads = twin("Llama"), Reads(rows)
    advised = least(model, CELLS, reads=reads)
    plan = replay.plan(model, PROMPTS, CELLS, reads=reads, memory=advised)
    assert len(plan.works) == len(CELLS) and plan.bytes <= size(advised)
    with pytest.raises(MemoryError, match=r"is too small for one cell: .* give memory=\w+ or"):
        replay.plan(model, PROMPTS, CELLS, reads=reads, memory=size(advised) - 5000)


IN_FULL = [
    {Site("embed"): edits.zero(positions=torch.tensor([3, 2, 1]))},
    {Site("embed"): edits.scale(0.5), Site("z", 1): edits.zero(heads=[1])},
]


def own(activation):
    return activation * 0.5


@pytest.mark.parametrize("architecture", ["Llama", "BERT"])
@pytest.mark.parametrize("rows", ["last", "all"])
def test_cells_in_full_run_some_prompts_at_a_time_where_all_do_not_fit(
    twin, replayed, monkeypatch, architecture, rows
):
    model, reads = twin(architecture), Reads(rows)
    monkeypatch.setattr("hooks.replay.memory._COPIES", 50)  # as if the vocabulary were large
    whole = replayed(model, PROMPTS, IN_FULL, reads)
    advised = least(model, IN_FULL, reads=reads)
    assert whole.plan.prompts_at_once == 3
    small = replayed(model, PROMPTS, IN_FULL, reads, memory=advised)
    assert small.plan.prompts_at_once == 1
    assert small.plan.bytes <= size(advised) < whole.plan.bytes
    assert_close(small.logits, whole.logits, rtol=1e-5, atol=1e-5)
    assert_close(small.base, whole.base, rtol=1e-5, atol=1e-5)
    with pytest.raises(MemoryError):
        replay.plan(model, PROMPTS, IN_FULL, reads=reads, memory=size(advised) - 9000)


def test_the_logits_of_a_cell_in_full_count_though_nothing_is_replayed(twin):
    model, cells = twin("GPT-2"), [{Site("embed"): edits.zero()}]
    last, everything = (replay.plan(model, PROMPTS, cells, reads=Reads(r)) for r in ("last", "all"))
    # 3 prompts x 7 positions x 67 logits of 4 bytes; of the last ones there are 3 different
    assert everything.bytes - last.bytes == 5 * 3 * (7 - 3) * 67 * 4


def test_a_function_of_ones_own_gets_all_prompts_or_is_refused_by_what_they_take(twin, replayed):
    model, cells = twin("Llama"), [{Site("embed"): own}]
    advised = least(model, cells)
    with pytest.raises(MemoryError, match="a function of your own gets all prompts at once, and 3"):
        replay.plan(model, PROMPTS, cells, memory=advised)
    found = replayed(model, PROMPTS, cells)
    assert_close(
        found.logits[0], replayed(model, PROMPTS, [{Site("embed"): edits.scale(0.5)}]).logits[0]
    )


def test_what_edits_write_counts_once_however_many_write_it(twin):
    model, site = twin("Llama"), Site("resid_pre", 1)
    value = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(0))
    plain = [{site: edits.zero(positions=at)} for at in (0, 1, 2)]
    patched = [{site: edits.replace(value, positions=at)} for at in (0, 1, 2)]
    spread = [{site: edits.replace(value[:1, :1].clone().expand(3, 7, 32))} for _ in range(3)]
    bytes_of = [replay.plan(model, PROMPTS, cells, check=0).bytes for cells in (plain, patched)]
    assert bytes_of[1] - bytes_of[0] == 3 * 7 * 32 * 4
    assert replay.plan(model, PROMPTS, spread[:1], check=0).bytes <= bytes_of[0] + 32 * 4


def test_what_is_recorded_is_known_before_it_is(twin):
    from hooks.replay.cells import sites_to_record, steps_of
    from hooks.replay.memory import Shape

    streams = ("resid_mid", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern", "neuron")
    for architecture in ("GPT-2", "Llama", "Gemma 3"):
        model = twin(architecture)
        cells = [{Site(stream, 1): edits.scale(0.5)} for stream in streams]
        recorded = replay.plan(model, PROMPTS, cells).recording
        wanted = sites_to_record(model, [steps_of(model, cell) for cell in cells])
        assert Shape.of(model, PROMPTS, Reads()).recorded(wanted) == recorded.bytes


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


def test_a_watch_that_gets_no_memory_is_halved_and_shows_every_row_once(twin, monkeypatch):
    model, sites = twin("Llama"), [Site("z", 0), Site("mlp_out", 1)]

    def watched(error=None):
        plan, shown, trail = replay.plan(model, PROMPTS, CELLS), {}, replay.Trail()

        def show(seen):
            for row, (cell, prompt) in enumerate(
                zip(seen.cells.tolist(), seen.prompts.tolist(), strict=True)
            ):
                assert (seen.site, cell, prompt) not in shown
                shown[seen.site, cell, prompt] = seen.activation[row].clone()

        with monkeypatch.context() as patch:
            if error is not None:
                refusing(patch, error, most=9)
            replay.watch(plan, sites, show, trail=trail)
        return shown, trail

    whole, _ = watched()
    for error in SHORTAGES:
        halved, trail = watched(error)
        assert trail.backoffs[0] == "no memory for 12 cells at once: halved"
        assert halved.keys() == whole.keys()
        for key, found in halved.items():
            assert_close(found, whole[key], rtol=1e-5, atol=1e-5)
    with pytest.raises(RuntimeError, match="something else"):
        watched(RuntimeError("something else"))


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
