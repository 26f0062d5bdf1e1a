import base64
import dataclasses
import gc
import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as draw
from IPython.lib.pretty import pretty
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from workbench import results
from workbench.results import result as result_module
from workbench.statistics import Estimate


class Head(NamedTuple):
    layer: int
    head: int


@dataclass(frozen=True, eq=False)
class Effects(results.Result):
    """Change in a <metric> when a head is ablated. Negative: the head was helping.

    More is said here.
    """

    effect: Float[Tensor, "layer head"] = field(
        metadata={"means": "change in the metric", "unit": "logits"}
    )
    per_prompt: Float[Tensor, "layer head batch"]
    baseline: Float[Tensor, " batch"]
    total: Float[Tensor, ""]
    seconds: float = field(metadata={"unit": "seconds"})
    prompts: list[str] = field(metadata={"axis": "batch"})
    heads: list[Head]
    pieces: list[list[str]]
    headline_estimate: Estimate
    note: str | None = None
    kept: Bool[Tensor, "layer head"] | None = None
    settings: dict[str, float | str] = field(default_factory=dict)
    method: Literal["zero", "mean"] = "zero"


@pytest.fixture
def effects() -> Effects:
    per_prompt = torch.arange(24.0).reshape(2, 3, 4) / 7
    return Effects(
        effect=per_prompt.mean(-1),
        per_prompt=per_prompt.transpose(0, 1).contiguous().transpose(0, 1),
        baseline=torch.tensor([1.0, math.nan, math.inf, -0.0]),
        total=torch.tensor(2.5),
        seconds=1.5,
        prompts=["", "zwei\nZeilen", "日本 🙂", " \x00 end\x00"],
        heads=[Head(0, 1), Head(1, 2)],
        pieces=[["a", " b"], [], ["\ud800"]],
        headline_estimate=Estimate(1.0, 0.5, math.nan, 4),
        settings={"l2": 0.1, "kind": "mean", "limit": math.inf},
    )


def same(first: Any, second: Any) -> bool:
    """Equal, with NaN equal to itself, and of the same type."""
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(bits(first), bits(second))
    if dataclasses.is_dataclass(first):
        pairs = [
            (getattr(first, f.name), getattr(second, f.name)) for f in dataclasses.fields(first)
        ]
        return type(first) is type(second) and all(same(*pair) for pair in pairs)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        alike = type(first) is type(second) and len(first) == len(second)
        return alike and all(map(same, first, second))
    return type(first) is type(second) and (
        first == second or (first != first and second != second)
    )


def bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).clone().view(torch.uint8) if tensor.numel() else tensor


def one_field(hint: Any, **metadata: str) -> type:
    """A kind of result with the one field `found`."""
    made = [("found", hint, field(metadata=metadata))]
    return dataclasses.make_dataclass("Found", made, frozen=True, eq=False)


def there_and_back(hint: Any, value: Any, folder) -> Any:
    kind = one_field(hint)
    results.save(kind(value), folder / "found.nc")
    return results.load(kind, folder / "found.nc").found


# Round trips


def test_a_result_reads_back_as_it_was(effects, tmp_path):
    written = results.save(effects, tmp_path / "new" / "result.nc")
    read = results.load(Effects, tmp_path / "new" / "result.nc", sha256=written)
    assert same(read, effects)
    assert results.digest(read) == results.digest(effects)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result.nc"]
    assert written == hashlib.sha256((tmp_path / "new" / "result.nc").read_bytes()).hexdigest()


KINDS = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_tensors_of_every_kind_and_of_no_length_keep_their_dtype(dtype, shape, tmp_path):
    numbers = torch.randn(6, generator=torch.Generator().manual_seed(0)) * 40
    tensor = numbers[: math.prod(shape)].reshape(shape).abs().to(getattr(torch, dtype))
    assert same(there_and_back(Shaped[Tensor, "row column"], tensor, tmp_path), tensor)


def test_views_that_need_gradients_are_stored_as_numbers(tmp_path):
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
def test_whatever_is_allowed_reads_back(value, tmp_path_factory):
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
def test_tensors_of_any_shape_read_back(shape, values, tmp_path_factory):
    tensor = torch.tensor(values)[: math.prod(shape)].reshape(shape)
    hint = Float[Tensor, " ".join(["layer", "head", "batch"][: len(shape)])]
    assert same(there_and_back(hint, tensor, tmp_path_factory.mktemp("shape")), tensor)


def test_mixed_numbers_become_floats(tmp_path):
    assert same(there_and_back(list[float], [1, 2.5], tmp_path), [1.0, 2.5])


def test_a_field_named_as_its_axis_gives_the_cells_their_names(tmp_path):
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


def test_a_named_tuple_is_rebuilt_from_the_annotation(effects, tmp_path):
    results.save(effects, tmp_path / "result.nc")
    assert results.load(Effects, tmp_path / "result.nc").heads[1].head == 2


# What is refused


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Any, {1, 2}),
        (Any, object()),
        (Any, [1, "a"]),
        (Any, [(1, 2), (3,)]),
        (Any, [(1.5, 2)]),
        (Any, {1: 2.0}),
        (Any, {"a": [1]}),
        (Any, b"bytes"),
        (Any, Effects),
        (Shaped[Tensor, " a"], torch.ones(2, dtype=torch.complex64)),
    ],
)
def test_what_has_no_place_in_a_result_is_refused_by_name(hint, value, tmp_path):
    with pytest.raises(
        TypeError, match=r"field found holds .* allowed are tensors with named axes"
    ):
        results.save(one_field(hint)(value), tmp_path / "found.nc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("hint", "value", "error", "message"),
    [
        (Tensor, torch.ones(2), TypeError, "names no axes"),
        (Float[Tensor, "*any batch"], torch.ones(2), TypeError, r"axis '\*any' of field found"),
        (Float[Tensor, "layer head"], torch.ones(2), ValueError, r"shape \(2,\), annotated with"),
        (Int[Tensor, " layer"], torch.ones(2), TypeError, "field found holds float32"),
        (int, 2**63, ValueError, "beyond 64 bits"),
        (list[int], [2**70], ValueError, "beyond 64 bits"),
    ],
)
def test_fields_that_contradict_their_annotation_are_refused(hint, value, error, message):
    with pytest.raises(error, match=message):
        results.to_xarray(one_field(hint)(value))


def test_fields_that_disagree_on_an_axis_are_both_named(effects):
    wrong = dataclasses.replace(effects, baseline=torch.ones(5))
    with pytest.raises(
        ValueError, match="'batch' has length 4 in field per_prompt and 5 in field b"
    ):
        results.to_xarray(wrong)
    wrong = dataclasses.replace(effects, prompts=["one"])
    with pytest.raises(ValueError, match="1 in field prompts"):
        results.to_xarray(wrong)


def test_only_dataclass_instances_are_results():
    with pytest.raises(TypeError, match="int is not"):
        results.to_xarray(3)
    with pytest.raises(TypeError, match="Effects is a class"):
        results.to_xarray(Effects)


# Files that were changed, or are of another kind


def test_a_flipped_byte_is_found_with_and_without_the_digest(effects, tmp_path):
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
def test_a_cut_file_is_refused(keep, effects, tmp_path):
    path = tmp_path / "result.nc"
    results.save(effects, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep == 0.5 else keep])
    with pytest.raises(ValueError, match=r"cannot be read as netCDF|is damaged"):
        results.load(Effects, path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf's own
def test_no_flipped_byte_changes_a_number_unseen(effects, tmp_path):
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


def test_a_file_of_another_kind_is_refused_with_what_differs(effects, tmp_path):
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
def test_a_number_is_not_read_as_something_else(hint, tmp_path):
    results.save(one_field(int)(3), tmp_path / "found.nc")
    with pytest.raises(ValueError, match="field found is a int, asked for"):
        results.load(one_field(hint), tmp_path / "found.nc")


def test_netcdf_from_elsewhere_and_files_of_later_formats_are_refused(effects, tmp_path):
    path = tmp_path / "other.nc"
    xr.Dataset({"found": 3}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match="no result of this workbench"):
        results.load(Effects, path)
    results.to_xarray(effects).assign_attrs(format=99, content="").to_netcdf(
        path, engine="h5netcdf"
    )
    with pytest.raises(ValueError, match="has format 99"):
        results.load(Effects, path)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(effects, tmp_path, monkeypatch):
    path = tmp_path / "result.nc"
    written = results.save(effects, path)

    def full(*_arguments, **_options):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        results.save(dataclasses.replace(effects, seconds=9.0), path)
    assert results.load(Effects, path, sha256=written).seconds == 1.5
    assert [one.name for one in tmp_path.iterdir()] == ["result.nc"]


# Digests


@dataclass(frozen=True, eq=False)
class Page(results.Result):
    """Two results on one page, whose axes have the same names and other lengths."""

    one: Effects
    other: Effects
    missing: Effects | None = None
    note: str = ""


def test_a_result_inside_a_result_keeps_axes_of_its_own(effects, tmp_path):
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


def test_a_result_inside_a_result_is_refused_as_another_kind(effects, tmp_path):
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


OtherPage = Page


def test_the_digest_depends_on_every_field_and_on_nothing_else(effects):
    first = results.digest(effects)
    assert results.digest(dataclasses.replace(effects)) == first
    moved = {
        "effect": -effects.effect,
        "per_prompt": effects.per_prompt.double(),
        "baseline": torch.tensor([1.0, math.nan, math.inf, 0.0]),
        "seconds": 1.25,
        "prompts": ["", "zwei\nZeilen", "日本 🙂", "end"],
        "heads": [Head(0, 1), Head(1, 1)],
        "pieces": [["a"], [" b"], ["\ud800"]],
        "headline_estimate": Estimate(1.0, 0.5, math.nan, 5),
        "note": "",
        "settings": {},
        "method": "mean",
    }
    changed = {results.digest(dataclasses.replace(effects, **{k: v})) for k, v in moved.items()}
    assert len(changed) == len(moved) and first not in changed


def test_the_same_numbers_in_another_precision_have_another_digest():
    kind = one_field(Float[Tensor, " layer"])
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    assert len({results.digest(kind(torch.ones(2, dtype=one))) for one in kinds}) == 3


# Reading without this workbench


def test_plain_xarray_sees_named_axes_meaning_and_units(effects, tmp_path):
    results.save(effects, tmp_path / "result.nc")
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as plain:
        assert plain["per_prompt"].dims == ("layer", "head", "batch")
        assert plain["effect"].attrs == {"long_name": "change in the metric", "units": "logits"}
        assert plain["prompts"].dims == ("batch",)
        assert plain["seconds"].item() == 1.5 and plain["seconds"].attrs["units"] == "s"
        assert plain["heads"].values.tolist() == [[0, 1], [1, 2]]
        assert plain["headline_estimate.low"].item() == 0.5
        assert plain.attrs["kind"].endswith("test_results.Effects")
        assert plain.attrs["title"].startswith("Change in a <metric>")


def test_a_repeated_axis_gets_a_number():
    kind = one_field(Float[Tensor, "head head head"])
    assert kind and results.to_xarray(kind(torch.ones(2, 2, 2)))["found"].dims == (
        "head",
        "head_2",
        "head_3",
    )


def test_a_frame_has_one_row_per_head_and_leaves_prompts_out(effects):
    frame = effects.to_frame()
    assert list(frame.columns) == ["layer", "head", "effect", "total"]
    assert frame.shape == (6, 4)
    row = frame[(frame["layer"] == 1) & (frame["head"] == 2)].iloc[0]
    assert row["effect"] == effects.effect[1, 2].item()


def test_a_frame_of_a_per_prompt_field_has_one_row_per_prompt(effects):
    frame = effects.to_frame(field="per_prompt")
    assert len(frame) == 24
    assert {"layer", "head", "batch", "per_prompt", "effect", "baseline", "prompts"} <= set(frame)
    row = frame[(frame["layer"] == 1) & (frame["head"] == 0) & (frame["batch"] == 1)].iloc[0]
    assert row["per_prompt"] == effects.per_prompt[1, 0, 1].item()
    assert row["effect"] == effects.effect[1, 0].item() and row["prompts"] == "zwei\nZeilen"


def test_a_frame_of_a_field_that_is_no_tensor_is_refused(effects):
    with pytest.raises(
        ValueError, match=r"'prompts' is no tensor of Effects: choose from \['effect'"
    ):
        effects.to_frame(field="prompts")


def test_a_result_without_tensors_is_one_row():
    assert results.to_frame(one_field(Estimate)(Estimate(1.0, 0.0, 2.0, 4))).shape == (1, 5)


# Showing itself


def test_the_sentence_is_the_first_line_of_the_docstring(effects):
    promised = "Change in a <metric> when a head is ablated. Negative: the head was helping."
    assert effects.sentence() == promised
    assert effects.headline() == {}


def test_a_notebook_shows_the_sentence_escaped_and_the_drawing(effects, monkeypatch):
    monkeypatch.setattr(result_module, "_drawings", [])
    assert "a &lt;metric&gt; when" in effects._repr_html_() and "<img" not in effects._repr_html_()
    results.drawn_by(lambda found: b"PNG of " + found.method.encode())
    shown = effects._repr_html_()
    assert f'src="data:image/png;base64,{base64.b64encode(b"PNG of zero").decode()}"' in shown
    assert "<metric>" not in shown
    results.drawn_by(lambda found: None)
    assert "<img" not in effects._repr_html_()


def test_a_terminal_session_shows_the_sentence_and_no_tensors(effects):
    assert pretty(effects) == effects.sentence()


def test_what_varies_from_run_to_run_is_stored_and_checked_but_not_part_of_the_digest(tmp_path):
    @dataclass(frozen=True, eq=False)
    class Timed(results.Result):
        found: Float[Tensor, " cell"]
        seconds: Float[Tensor, " cell"] = field(metadata={"varies": "from run to run"})

    one, other = (Timed(torch.ones(2), torch.full((2,), took)) for took in (1.0, 2.0))
    assert results.digest(one) == results.digest(other)
    assert results.digest(one) != results.digest(Timed(torch.zeros(2), one.seconds))
    results.save(one, tmp_path / "timed.nc")
    assert torch.equal(results.load(Timed, tmp_path / "timed.nc").seconds, one.seconds)
