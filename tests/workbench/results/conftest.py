"""A result with a field of each kind, and what compares results."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench import results
from workbench.statistics import Estimate


class Head(NamedTuple):
    layer: int
    head: int


@pytest.fixture(scope="session", name="Head")
def _head():
    return Head


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


@pytest.fixture(scope="session", name="Effects")
def _effects():
    return Effects


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


@pytest.fixture(scope="session", name="same")
def _same():
    return same


def bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).clone().view(torch.uint8) if tensor.numel() else tensor


def one_field(hint: Any, **metadata: str) -> type:
    """A kind of result with the one field `found`."""
    made = [("found", hint, field(metadata=metadata))]
    return dataclasses.make_dataclass("Found", made, frozen=True, eq=False)


@pytest.fixture(scope="session", name="one_field")
def _one_field():
    return one_field


def there_and_back(hint: Any, value: Any, folder) -> Any:
    kind = one_field(hint)
    results.save(kind(value), folder / "found.nc")
    return results.load(kind, folder / "found.nc").found


@pytest.fixture(scope="session", name="there_and_back")
def _there_and_back():
    return there_and_back


@dataclass(frozen=True, eq=False)
class Page(results.Result):
    """Two results on one page, whose axes have the same names and other lengths."""

    one: Effects
    other: Effects
    missing: Effects | None = None
    note: str = ""


@pytest.fixture(scope="session", name="Page")
def _page():
    return Page


OtherPage = Page


@pytest.fixture(scope="session", name="OtherPage")
def _otherpage():
    return OtherPage
