"""Sweeps over disks that fail, and over folders that were harmed."""

import errno

import pytest

from hooks.store import Damaged


@pytest.mark.parametrize("nth", [1, 6, 11, 17, 24, 33])
def test_whatever_the_disk_refuses_the_same_sweep_ends_with_the_same_bits_later(
    sweep, tmp_path, failing_disk, nth
):
    whole = sweep()
    with failing_disk(nth, errno.ENOSPC) as failing, pytest.raises(OSError):
        sweep(tmp_path / "kept")
    assert failing.refused
    found = sweep(tmp_path / "kept")
    assert found.cost.resumed % 2 == 0 and found.cost.resumed < 10  # whole batches of two
    assert found.values.allclose(whole.values, rtol=1e-5, atol=1e-5)
    again = sweep(tmp_path / "kept")
    assert again.cost.resumed == 10 and again.values.equal(found.values)


def test_blobs_in_each_others_place_are_found_and_their_cells_computed_again(sweep, tmp_path, ran):
    first = sweep(tmp_path / "kept")
    ran.clear()
    one, other, *_ = sorted((tmp_path / "kept" / "blobs").iterdir())
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    again = sweep(tmp_path / "kept")
    assert len(ran) == 2 and again.cost.resumed == 6
    assert again.values.equal(first.values)


def test_a_harmed_index_is_an_error_that_says_how_the_sweep_goes_on(sweep, tmp_path, ran):
    first = sweep(tmp_path / "kept")
    ran.clear()
    index = tmp_path / "kept" / "index.sqlite"
    index.write_bytes(b"\0" * 4096)
    with pytest.raises(Damaged, match=r"index\.sqlite.*Remove this file and open"):
        sweep(tmp_path / "kept")
    index.unlink()
    again = sweep(tmp_path / "kept")
    assert ran == [] and again.cost.resumed == 10 and again.values.equal(first.values)
