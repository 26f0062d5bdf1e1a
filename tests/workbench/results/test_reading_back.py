"""What was saved comes back as it was."""

import dataclasses
import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as draw
from jaxtyping import Float, Shaped
from torch import Tensor

from workbench import results
from workbench.statistics import Estimate


def test_a_result_reads_back_as_it_was(effects, tmp_path, Effects, same):
    written = results.save(effects, tmp_path / "new" / "result.nc")
    read = results.load(Effects, tmp_path / "new" / "result.nc", sha256=written)
    assert same(read, effects)
    assert results.digest(read) == results.digest(effects)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result.nc"]
    assert written == hashlib.sha256((tmp_path / "new" / "result.nc").read_bytes()).hexdigest()


KINDS = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_tensors_of_every_kind_and_of_no_length_keep_their_dtype(
    dtype, shape, tmp_path, same, there_and_back
):
    numbers = torch.randn(6, generator=torch.Generator().manual_seed(0)) * 40
    tensor = numbers[: math.prod(shape)].reshape(shape).abs().to(getattr(torch, dtype))
    assert same(there_and_back(Shaped[Tensor, "row column"], tensor, tmp_path), tensor)


def test_views_that_need_gradients_are_stored_as_numbers(tmp_path, same, there_and_back):
    whole = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    read = there_and_back(Float[Tensor, "row column"], whole[:, ::2].T, tmp_path)
    assert same(read, whole.detach()[:, ::2].T.contiguous()) and not read.requires_grad


SOME = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
texts = draw.text(draw.characters(exclude_categories=()), max_size=12)
whole = draw.integers(-(2**63), 2**63 - 1)


@SOME
@given(
    value=draw.one_of(
        draw.none(),
        draw.booleans(),
        whole,
        draw.floats(),
        texts,
        draw.lists(texts),
        draw.lists(whole),
        draw.lists(draw.floats()),
        draw.lists(draw.booleans()),
        draw.lists(draw.lists(texts)),
        draw.lists(draw.tuples(whole, whole)),
        draw.lists(texts).map(tuple),
        draw.lists(whole).map(tuple),
        draw.dictionaries(texts, draw.one_of(draw.floats(), texts, draw.none(), draw.integers())),
    )
)
def test_whatever_is_allowed_reads_back(value, tmp_path_factory, same, there_and_back):
    read = there_and_back(Any, value, tmp_path_factory.mktemp("any"))
    if isinstance(value, dict):
        assert list(read) == list(value)
        assert same(list(read.values()), list(value.values()))
    else:
        assert same(read, value)


@SOME
@given(
    shape=draw.lists(draw.integers(0, 4), max_size=3),
    values=draw.lists(draw.floats(width=32), min_size=64, max_size=64),
)
def test_tensors_of_any_shape_read_back(shape, values, tmp_path_factory, same, there_and_back):
    tensor = torch.tensor(values)[: math.prod(shape)].reshape(shape)
    hint = Float[Tensor, " ".join(["layer", "head", "batch"][: len(shape)])]
    assert same(there_and_back(hint, tensor, tmp_path_factory.mktemp("shape")), tensor)


def test_mixed_numbers_become_floats(tmp_path, same, there_and_back):
    assert same(there_and_back(list[float], [1, 2.5], tmp_path), [1.0, 2.5])


def test_a_field_named_as_its_axis_gives_the_cells_their_names(tmp_path, same):
    @dataclass(frozen=True, eq=False)
    class Found:
        word: list[str] = field(metadata={"axis": "word"})
        layer: list[int] = field(metadata={"axis": "layer"})
        pos: Float[Tensor, " pos"]
        found: Float[Tensor, "layer word pos"]

    made = Found(["b", "a"], [7, 3, 5], torch.tensor([0.5, 0.25]), torch.rand(3, 2, 2))
    results.save(made, tmp_path / "found.nc")
    assert same(results.load(Found, tmp_path / "found.nc"), made)
    row = results.to_frame(made, field="found").iloc[0]
    assert row.to_dict() == {
        "layer": 7,
        "word": "b",
        "pos": 0.5,
        "found": made.found[0, 0, 0].item(),
    }
    chosen = results.to_xarray(made).sel(layer=3, word="a")["found"].values
    assert chosen.tolist() == made.found[1, 1].tolist()


def test_a_named_tuple_is_rebuilt_from_the_annotation(effects, tmp_path, Effects):
    results.save(effects, tmp_path / "result.nc")
    assert results.load(Effects, tmp_path / "result.nc").heads[1].head == 2


def test_a_result_inside_a_result_keeps_axes_of_its_own(effects, tmp_path, Head, Page):
    longer = dataclasses.replace(
        effects, effect=torch.ones(5, 7), per_prompt=torch.ones(5, 7, 4), note="longer"
    )
    page = Page(effects, longer, note="a page")
    results.save(page, tmp_path / "page.nc")
    again = results.load(Page, tmp_path / "page.nc")
    assert results.digest(again) == results.digest(page)
    assert again.missing is None and again.note == "a page"
    assert results.digest(again.one) == results.digest(effects)
    assert results.digest(again.other) == results.digest(longer)
    assert again.other.note == "longer" and type(again.one.heads[0]) is Head
    seen = xr.open_dataset(tmp_path / "page.nc", engine="h5netcdf")
    assert seen["other.effect"].dims == ("other.layer", "other.head")
    assert seen["one.effect"].attrs["long_name"] == "change in the metric"
    seen.close()


def test_a_result_inside_a_result_is_refused_as_another_kind(effects, tmp_path, Effects, OtherPage):
    @dataclass(frozen=True, eq=False)
    class Page(results.Result):
        """Another page."""

        one: Estimate
        other: Effects
        missing: Effects | None = None
        note: str = ""

    results.save(OtherPage(effects, effects), tmp_path / "page.nc")
    with pytest.raises(ValueError, match="field one holds a Effects, not Estimate"):
        results.load(Page, tmp_path / "page.nc")
