"""What cannot be a result, or a field of one."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench import results


@dataclass(frozen=True, eq=False)
class Effects(results.Result):
    """A kind of result, given where one result is asked for."""

    effect: Float[Tensor, "layer head"]


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
def test_what_has_no_place_in_a_result_is_refused_by_name(hint, value, tmp_path, one_field):
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
def test_fields_that_contradict_their_annotation_are_refused(
    hint, value, error, message, one_field
):
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
