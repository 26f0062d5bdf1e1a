"""Sweeps that are interrupted, repeated and changed: what is reused, and what never is."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch.testing import assert_close

from hooks import Edit, Prompts, Site, edits, last_logits, replay
from hooks.replay.recording import Recording
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


def test_keeping_results_does_not_change_them(sweep, tmp_path):
    plain, kept = sweep(), sweep(tmp_path / "kept")
    assert_close(kept.values, plain.values, rtol=1e-5, atol=1e-5)
    assert kept.baseline.equal(plain.baseline)


def test_a_repeated_sweep_runs_nothing_and_gives_the_same_bits(sweep, tmp_path, ran):
    first = sweep(tmp_path / "kept")
    assert len(ran) == 5 and first.cost.resumed == 0
    ran.clear()
    again = sweep(tmp_path / "kept")
    assert ran == [] and again.cost.resumed == 10
    assert again.values.equal(first.values) and again.baseline.equal(first.baseline)
    assert "10 cells, 10 of them kept from an earlier run" in str(again.cost)


class Stop(KeyboardInterrupt):
    """What Ctrl-C raises, told apart from a person's own."""


@pytest.mark.parametrize("call", [1, 4, 9, 14])
def test_what_was_finished_before_an_interrupt_is_not_run_again(
    sweep, tmp_path, ran, monkeypatch, call
):
    whole = sweep(tmp_path / "whole")
    ran.clear()
    calls = []
    real = Recording.run_block

    def run_block(self, layer, hidden, **how):
        calls.append(layer)
        if len(calls) == call:
            raise Stop
        return real(self, layer, hidden, **how)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Recording, "run_block", run_block)
        sweep(tmp_path / "cut")
    done = list(ran)
    assert done == whole_batches()[: len(done)] and len(done) < 5
    found = sweep(tmp_path / "cut")
    assert ran == whole_batches()  # each batch was finished once, in order
    assert found.cost.resumed == 2 * len(done)
    assert found.values.equal(whole.values) and found.baseline.equal(whole.baseline)


def whole_batches():
    return [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]


@pytest.mark.parametrize("before", [0, 1, 3])
def test_an_interrupt_while_results_are_written_keeps_all_or_none_of_them(
    sweep, tmp_path, ran, monkeypatch, before
):
    from hooks.store import Shelf

    whole = sweep(tmp_path / "whole")
    ran.clear()
    real = Shelf._write

    def write(self, *given):
        if len(ran) == before + 1:
            raise Stop
        real(self, *given)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Shelf, "_write", write)
        sweep(tmp_path / "cut")
    found = sweep(tmp_path / "cut")
    again = [ran[before], *ran[before + 1 :]]
    assert found.cost.resumed == 2 * before
    assert again[0] == again[1] == whole_batches()[before]  # the one batch that is done twice
    assert found.values.equal(whole.values)


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


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_nothing_old_is_reused(sweep, tmp_path, ran, what):
    change, affected = CHANGES[what]
    old = sweep(tmp_path / "kept")
    ran.clear()
    changed = change(sweep)
    found = changed(tmp_path / "kept")
    assert sorted(cell for batch in ran for cell in batch) == list(affected)
    assert found.cost.resumed == 10 - len(affected)
    assert_close(found.values, changed().values, rtol=1e-5, atol=1e-5)
    if found.values.shape == old.values.shape:
        assert not found.values[:, list(affected)].equal(old.values[:, list(affected)])


def test_answers_and_foils_are_told_apart(model, padded, tmp_path):
    """The same ids in the same order, of which two are answers or one is."""
    ids = torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]])
    flat = ids.flatten()
    two = replace(padded, answer=flat[:6].reshape(3, 2), foil=flat[6:].reshape(3, 1))
    one = replace(padded, answer=flat[:3].reshape(3, 1), foil=flat[3:].reshape(3, 2))
    cells = cells_of()
    for task in (two, one):
        found = effects.exact(model, task, cells, metrics=[metrics.logit_diff], keep=tmp_path / "k")
        assert found.cost.resumed == 0


def test_a_sweep_reuses_what_another_one_has_in_common_with_it(sweep, tmp_path, ran):
    first = sweep(tmp_path / "kept")
    ran.clear()
    more = [{Site("final"): edits.scale(0.5)}, *reversed(sweep.cells)]
    found = replace(sweep, cells=more)(tmp_path / "kept")
    assert ran == [(0,)] and found.cost.resumed == 10
    assert found.values[:, 1:].flip(1).equal(first.values)


def test_the_same_cell_twice_is_kept_once_and_given_twice(sweep, tmp_path, ran):
    cells = [sweep.cells[0], *cells_of()[1:3], sweep.cells[0]]
    twice = replace(sweep, cells=cells)
    found = twice(tmp_path / "kept")
    assert ran == [(0, 1), (2,)] and found.cost.resumed == 1
    assert found.values[:, 0].equal(found.values[:, 3])
    assert twice(tmp_path / "kept").values.equal(found.values)


def test_padding_ids_do_not_matter(sweep, tmp_path, ran):
    first = sweep(tmp_path / "kept")
    ran.clear()
    clean = sweep.task.clean
    tokens = torch.where(clean.mask.bool(), clean.tokens, 9)
    other = replace(sweep, task=replace(sweep.task, clean=Prompts(tokens, clean.lengths)))
    assert other(tmp_path / "kept").values.equal(first.values) and ran == []


@pytest.mark.parametrize("harm", ["a flipped byte", "a lost file", "a cut file"])
def test_cells_of_a_damaged_blob_alone_are_computed_again(sweep, tmp_path, ran, harm):
    first = sweep(tmp_path / "kept")
    ran.clear()
    blobs = sorted((tmp_path / "kept" / "blobs").iterdir())
    assert len(blobs) == 5
    content = bytearray(blobs[2].read_bytes())
    content[-3] ^= 1
    if harm == "a lost file":
        blobs[2].unlink()
    else:
        blobs[2].write_bytes(content if harm == "a flipped byte" else content[:-5])
    again = sweep(tmp_path / "kept")
    assert len(ran) == 1 and again.cost.resumed == 8
    assert again.values.equal(first.values)
    assert sorted((tmp_path / "kept" / "blobs").iterdir()) == blobs
    ran.clear()
    assert sweep(tmp_path / "kept").cost.resumed == 10 and ran == []


def own(activation):
    return activation * 2


@pytest.mark.parametrize("given", [own, [edits.zero(), own]], ids=["alone", "among edits"])
def test_own_functions_cannot_be_kept(sweep, tmp_path, unharmed, given):
    cells = [*sweep.cells, {Site("z", 1): given}]
    said = "the edit at z 1 is a function of your own, whose results cannot be kept"
    with unharmed(sweep.model), pytest.raises(ValueError, match=said):
        replace(sweep, cells=cells)(tmp_path / "kept")
    assert len(replace(sweep, cells=cells)().values[0]) == 11


def test_an_edit_of_ones_own_making_cannot_be_kept(sweep, tmp_path):
    """Nobody can tell what its function does, although it calls itself by a name of ours."""
    mine = Edit("zero", lambda activation, window: activation * 2)
    with pytest.raises(ValueError, match="the edit at z 1 is a function of your own, whose"):
        replace(sweep, cells=[{Site("z", 1): mine}])(tmp_path / "kept")


def test_a_metric_of_ones_own_cannot_be_kept(sweep, tmp_path):
    """Another function under the same name would be given the first one's results."""
    mine = Metric("mine", "nats", "last", "all", lambda logits, task, prompts: logits[:, 0])
    with pytest.raises(ValueError, match="the metric mine is a function of your own, whose"):
        replace(sweep, metrics=[metrics.logit_diff, mine])(tmp_path / "kept")
    assert len(replace(sweep, metrics=[mine])().values) == 1


def test_where_nobody_asked_for_it_what_cannot_be_kept_is_not_and_nothing_is_said(
    sweep, tmp_path, ran
):
    def first(logits, task, prompts):
        return logits[:, 0]

    def second(logits, task, prompts):
        return logits[:, 1]

    found = []
    with effects.keeping(tmp_path / "kept"):
        for function in (first, second):
            mine = Metric("mine", "nats", "last", "all", function)
            found.append(replace(sweep, metrics=[mine])())
    assert not found[0].values.equal(found[1].values)
    assert found[1].cost.resumed == 0


def test_some_prompts_of_an_edit_chosen_beforehand_are_part_of_what_it_is(sweep, tmp_path, ran):
    value = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(1))
    whole = edits.replace(value)
    for order in ([0, 1, 2], [2, 0, 1]):
        cell = {Site("resid_pre", 1): whole.of(torch.tensor(order))}
        assert replace(sweep, cells=[cell])(tmp_path / "kept").cost.resumed == 0


def test_a_folder_that_holds_something_else_is_refused(sweep, tmp_path, unharmed):
    (tmp_path / "thesis.tex").write_text("")
    with (
        unharmed(sweep.model),
        pytest.raises(ValueError, match=r"holds 'thesis\.tex' and no shelf"),
    ):
        sweep(tmp_path)
