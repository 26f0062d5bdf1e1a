"""What other programs, tables, notebooks and terminals show of a result."""

import base64

import pytest
import torch
import xarray as xr
from IPython.lib.pretty import pretty
from jaxtyping import Float
from torch import Tensor

from workbench import results
from workbench.results import result as result_module
from workbench.statistics import Estimate


def test_plain_xarray_sees_named_axes_meaning_and_units(effects, tmp_path):
    results.save(effects, tmp_path / "result.nc")
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as plain:
        assert plain["per_prompt"].dims == ("layer", "head", "batch")
        assert plain["effect"].attrs == {"long_name": "change in the metric", "units": "logits"}
        assert plain["prompts"].dims == ("batch",)
        assert plain["seconds"].item() == 1.5 and plain["seconds"].attrs["units"] == "s"
        assert plain["heads"].values.tolist() == [[0, 1], [1, 2]]
        assert plain["headline_estimate.low"].item() == 0.5
        assert plain.attrs["kind"].endswith("conftest.Effects")
        assert plain.attrs["title"].startswith("Change in a <metric>")


def test_a_repeated_axis_gets_a_number(one_field):
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


def test_a_result_without_tensors_is_one_row(one_field):
    assert results.to_frame(one_field(Estimate)(Estimate(1.0, 0.0, 2.0, 4))).shape == (1, 5)


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
