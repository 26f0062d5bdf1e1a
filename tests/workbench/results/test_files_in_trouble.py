"""Files that were changed, or are of another kind."""

import dataclasses
import gc
from dataclasses import dataclass

import pytest
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from workbench import results
from workbench.statistics import Estimate


def test_a_flipped_byte_is_found_with_and_without_the_digest(effects, tmp_path, Effects):
    path = tmp_path / "result.nc"
    written = results.save(effects, path)
    whole = path.read_bytes()
    place = whole.index(effects.per_prompt.contiguous().numpy().tobytes()) + 5
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ValueError, match="was changed since it was written"):
        results.load(Effects, path, sha256=written)
    with pytest.raises(ValueError, match="is damaged"):
        results.load(Effects, path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf's own
@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_cut_file_is_refused(keep, effects, tmp_path, Effects):
    path = tmp_path / "result.nc"
    results.save(effects, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep == 0.5 else keep])
    with pytest.raises(ValueError, match=r"cannot be read as netCDF|is damaged"):
        results.load(Effects, path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf's own
def test_no_flipped_byte_changes_a_number_unseen(effects, tmp_path, Effects, same):
    path = tmp_path / "result.nc"
    results.save(effects, path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 211):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            read = results.load(Effects, path)
        except ValueError:
            continue
        assert same(read, effects)
    gc.collect()


def test_a_file_of_another_kind_is_refused_with_what_differs(effects, tmp_path, one_field):
    path = tmp_path / "result.nc"
    results.save(effects, path)
    with pytest.raises(ValueError, match=r"not hold a Found: it is a .*Effects; missing .*found"):
        results.load(one_field(int), path)

    @dataclass(frozen=True, eq=False)
    class Found:
        found: Float[Tensor, "layer head"]

    results.save(Found(torch.ones(2, 3)), path)
    for hint, message in [
        (Float[Tensor, "head layer"], r"axes \['layer', 'head'\], asked for \['head', 'layer'\]"),
        (Int[Tensor, "layer head"], "field found is float32, asked for Int"),
        (float, "field found is a tensor, asked for"),
        (Float[Tensor, "layer head"] | None, None),
    ]:
        if message is None:
            assert results.load(one_field(hint), path).found.shape == (2, 3)
        else:
            with pytest.raises(ValueError, match=message):
                results.load(one_field(hint), path)


@pytest.mark.parametrize("hint", [str, list[int], Float[Tensor, ""], dict[str, float], Estimate])
def test_a_number_is_not_read_as_something_else(hint, tmp_path, one_field):
    results.save(one_field(int)(3), tmp_path / "found.nc")
    with pytest.raises(ValueError, match="field found is a int, asked for"):
        results.load(one_field(hint), tmp_path / "found.nc")


def test_netcdf_from_elsewhere_and_files_of_later_formats_are_refused(effects, tmp_path, Effects):
    path = tmp_path / "other.nc"
    xr.Dataset({"found": 3}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match="no result of this workbench"):
        results.load(Effects, path)
    results.to_xarray(effects).assign_attrs(format=99, content="").to_netcdf(
        path, engine="h5netcdf"
    )
    with pytest.raises(ValueError, match="has format 99"):
        results.load(Effects, path)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    effects, tmp_path, monkeypatch, Effects
):
    path = tmp_path / "result.nc"
    written = results.save(effects, path)

    def full(*_arguments, **_options):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        results.save(dataclasses.replace(effects, seconds=9.0), path)
    assert results.load(Effects, path, sha256=written).seconds == 1.5
    assert [one.name for one in tmp_path.iterdir()] == ["result.nc"]
