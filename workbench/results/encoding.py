"""One field to the variables that hold it, and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from workbench.results import annotations

ALLOWED = (
    "tensors with named axes, numbers, strings, lists or tuples of numbers, of strings or of "
    "tuples of whole numbers, lists of lists of strings, frozen dataclasses of numbers and "
    "strings, dicts of strings to numbers and strings, and None"
)

NARROW = {torch.bfloat16, torch.float16}
"""Kinds of number that netCDF has not; float32 holds all their values."""


@dataclass(frozen=True)
class Where:
    """The field that is being stored or read, for names and for errors."""

    name: str
    hint: Any
    axis: str | None = None

    @property
    def dimension(self) -> str:
        """The dimension of a list: the axis it was given, else one of its own."""
        return self.axis or f"{self.name}.item"


class Variable(NamedTuple):
    """Numbers or strings with named dimensions; `text` is "json" where strings are escaped."""

    dims: tuple[str, ...]
    values: np.ndarray
    text: str = ""


Encoded = tuple[dict[str, Any], dict[str, Variable]]
"""How the field is stored (JSON), and its variables by the part of the field that they hold."""


def encode(where: Where, value: Any) -> Encoded:
    """How `value` is stored; a value of no allowed kind is refused."""
    if value is None:
        return {"kind": "none"}, {}
    if isinstance(value, Tensor):
        return _encode_tensor(where, value)
    if type(value) in (bool, int, float, str):
        return {"kind": type(value).__name__}, {"": _variable(where, (), value)}
    if isinstance(value, Mapping):
        return {"kind": "dict"}, {"": _encode_dict(where, value)}
    if type(value) in (list, tuple):
        return _encode_sequence(where, value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        if all(type(part) in (bool, int, float, str) for part in parts.values()):
            kinds = {name: type(part).__name__ for name, part in parts.items()}
            named = {name: _variable(where, (), part) for name, part in parts.items()}
            return {"kind": "record", "class": type(value).__name__, "parts": kinds}, named
    raise _refusal(where, value)


def decode(where: Where, layout: Mapping[str, Any], parts: Mapping[str, Variable]) -> Any:
    """The value that `encode` stored, exactly."""
    kind = layout["kind"]
    if kind == "none":
        return None
    if kind == "tensor":
        values = np.array(parts[""].values).reshape(layout["shape"])
        return torch.from_numpy(values).to(getattr(torch, layout["dtype"]))
    if kind == "dict":
        return json.loads(parts[""].values.item())
    if kind == "record":
        made = annotations.record_class(where.hint)
        if made is None or made.__name__ != layout["class"]:
            raise ValueError(
                f"field {where.name} holds a {layout['class']}, not {annotations.shown(where.hint)}"
            )
        return made(**{name: _scalar(parts[name], one) for name, one in layout["parts"].items()})
    if kind in ("list", "tuple"):
        return _decode_sequence(where, layout, parts)
    return _scalar(parts[""], kind)


def dtype_name(tensor: Tensor) -> str:
    """The dtype without its library: "float32"."""
    return str(tensor.dtype).removeprefix("torch.")


def _encode_tensor(where: Where, value: Tensor) -> Encoded:
    dims = annotations.axes(where.name, where.hint)
    if len(dims) != value.ndim:
        raise ValueError(
            f"field {where.name} has shape {tuple(value.shape)}, annotated with the axes "
            f"{list(dims)}: one of the two is wrong"
        )
    if value.is_complex() or value.is_quantized:
        raise _refusal(where, value.dtype)
    plain = value.detach().cpu().float() if value.dtype in NARROW else value.detach().cpu()
    layout = {
        "kind": "tensor",
        "dtype": dtype_name(value),
        "shape": list(value.shape),
        "dims": list(dims),
    }
    return layout, {"": Variable(dims, np.ascontiguousarray(plain.numpy()).reshape(value.shape))}


def _encode_dict(where: Where, value: Mapping[Any, Any]) -> Variable:
    items = all(type(one) in (bool, int, float, str, type(None)) for one in value.values())
    if not items or not all(type(key) is str for key in value):
        raise _refusal(where, value)
    return Variable((), np.array(json.dumps(dict(value)), dtype=object), "json")


def _encode_sequence(where: Where, value: Sequence[Any]) -> Encoded:
    layout = {"kind": type(value).__name__, "of": "", "length": len(value)}
    inner = {type(item) for item in value}
    if inner <= {int, float} or inner <= {bool} or inner <= {str}:
        layout["of"] = "text" if inner == {str} else "numbers"
        return layout, {"": _variable(where, (where.dimension,), value)}
    if inner == {list} and {type(part) for item in value for part in item} <= {str}:
        layout["of"] = "ragged"
        flat = [part for item in value for part in item]
        lengths = np.array([len(item) for item in value], dtype=np.int64)
        return layout, {
            "": _variable(where, (f"{where.name}.part",), flat),
            "lengths": Variable((where.dimension,), lengths),
        }
    if len(inner) == 1 and issubclass(next(iter(inner)), tuple):
        widths = {len(item) for item in value}
        if len(widths) == 1 and {type(part) for item in value for part in item} <= {int}:
            layout |= {"of": "tuples", "width": widths.pop()}
            rows = _numbers(where, [list(item) for item in value]).reshape(
                len(value), layout["width"]
            )
            return layout, {"": Variable((where.dimension, f"{where.name}.part"), rows)}
    raise _refusal(where, value)


def _decode_sequence(where: Where, layout: Mapping[str, Any], parts: Mapping[str, Variable]) -> Any:
    made = {"list": list, "tuple": tuple}[layout["kind"]]
    if layout["of"] == "text":
        return made(_strings(parts[""]))
    if layout["of"] == "ragged":
        words = iter(_strings(parts[""]))
        return made([next(words) for _ in range(n)] for n in parts["lengths"].values.tolist())
    rows = parts[""].values.tolist()
    if layout["of"] == "tuples":
        item = annotations.item_class(where.hint)
        return made(item(row) for row in rows)
    return made(rows)


def _variable(where: Where, dims: tuple[str, ...], value: Any) -> Variable:
    strings = [value] if isinstance(value, str) else value if dims else []
    if not strings or not all(isinstance(one, str) for one in strings):
        return Variable(dims, _numbers(where, value))
    plain = all("\0" not in one and _is_unicode(one) for one in strings)
    written = list(strings) if plain else [json.dumps(one) for one in strings]
    values = np.empty(len(written), dtype=object)
    values[:] = written
    return Variable(dims, values if dims else values.reshape(()), "" if plain else "json")


def _numbers(where: Where, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype == object or array.dtype.kind == "u":
        raise ValueError(f"field {where.name} holds a number beyond 64 bits: store it as a string")
    return array


def _strings(variable: Variable) -> list[str]:
    found = [str(one) for one in variable.values.reshape(-1).tolist()]
    return [json.loads(one) for one in found] if variable.text == "json" else found


def _scalar(variable: Variable, kind: str) -> Any:
    if kind == "str":
        return _strings(variable)[0]
    return {"bool": bool, "int": int, "float": float}[kind](variable.values.item())


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _refusal(where: Where, value: Any) -> TypeError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return TypeError(
        f"field {where.name} holds {shown} ({type(value).__name__}), which has no place in a "
        f"result; allowed are {ALLOWED}"
    )
