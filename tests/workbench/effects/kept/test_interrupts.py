"""What was kept is not run again, whatever came between."""

import pytest
from torch.testing import assert_close

from hooks.replay.recording import Recording


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
