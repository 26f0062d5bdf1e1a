"""A result as an xarray Dataset, and as a pandas table with one row per cell."""

import inspect
import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from workbench.results import annotations
from workbench.results.encoding import Variable, Where, decode, dtype_name, encode

FORMAT = 1
"""Raised when a file of before can no longer be read."""

_TIMES = {
    "nanoseconds": "ns",
    "microseconds": "us",
    "milliseconds": "ms",
    "seconds": "s",
    "minutes": "min",
    "hours": "h",
    "days": "d",
}
"""Written as symbols: xarray turns numbers whose units are these words into time differences."""


def to_xarray(result: Any) -> xr.Dataset:
    """The result with named axes; the attributes say what it is and how it is stored."""
    if isinstance(result, type):
        raise TypeError(f"{result.__name__} is a class: give one of its results")
    kind, layouts = type(result), {}
    variables: dict[str, xr.Variable] = {}
    lengths: dict[str, tuple[int, str]] = {}
    for field, hint in annotations.stored_fields(kind):
        where = Where(field.name, hint, field.metadata.get("axis"))
        value = getattr(result, field.name)
        if annotations.is_part(value):
            layouts[field.name], inner = _part(field.name, value)
            variables |= inner
            continue
        if isinstance(value, Tensor) and not annotations.takes(hint, dtype_name(value)):
            found, asked = dtype_name(value), annotations.shown(hint)
            raise TypeError(f"field {field.name} holds {found}, annotated {asked}: cast it")
        layouts[field.name], parts = encode(where, value)
        for part, variable in parts.items():
            name = f"{field.name}.{part}" if part else field.name
            _agree(lengths, field.name, variable)
            attributes = _attributes(field.metadata, variable)
            variables[name] = xr.Variable(variable.dims, variable.values, attributes)
    return xr.Dataset(variables, attrs=_header(kind, layouts))


def from_xarray(kind: type[Any], dataset: xr.Dataset) -> Any:
    """The result that `to_xarray` turned into this; the fields must be those of `kind`."""
    layouts, values = json.loads(dataset.attrs["layout"]), {}
    for field, hint in annotations.stored_fields(kind):
        layout = layouts[field.name]
        if layout["kind"] == "result":
            values[field.name] = _whole(field.name, hint, layout, dataset)
            continue
        names = {
            name.partition(".")[2]: name
            for name in map(str, dataset.variables)
            if name.partition(".")[0] == field.name
        }
        parts = {
            part: Variable(
                tuple(map(str, dataset[name].dims)),
                dataset[name].values,
                dataset[name].attrs.get("text", ""),
            )
            for part, name in names.items()
        }
        where = Where(field.name, hint, field.metadata.get("axis"))
        values[field.name] = decode(where, layout, parts)
    return kind(**values)


def to_frame(result: Any, *, field: str = "") -> pd.DataFrame:
    """One row per cell of `field`; a column per axis, then every field with only those axes.

    Without `field`, the rows are those of the first tensor without a batch axis (of the first
    tensor where all have one): ask for a per-prompt field by name. A result without tensors is
    one row of its numbers and strings.
    """
    dataset = to_xarray(result)
    tensors = [
        one.name
        for one, _ in annotations.stored_fields(type(result))
        if isinstance(getattr(result, one.name), Tensor)
    ]
    if field and field not in tensors:
        raise ValueError(
            f"{field!r} is no tensor of {type(result).__name__}: choose from {tensors}"
        )
    if not tensors:
        alone = {str(name): [one.item()] for name, one in dataset.items() if not one.dims}
        return pd.DataFrame(alone)
    whole = [name for name in tensors if "batch" not in dataset[name].dims]
    dims = dataset[field or (whole or tensors)[0]].dims
    sizes = [dataset.sizes[dim] for dim in dims]
    index = np.indices(sizes).reshape(len(dims), int(np.prod(sizes)))
    place = dict(zip(dims, index, strict=True))
    columns: dict[str, Any] = {str(dim): row for dim, row in place.items()}
    for name, one in dataset.variables.items():
        if set(one.dims) <= set(dims) and (one.dims or name in tensors):
            cells = one.values[tuple(place[dim] for dim in one.dims)]
            escaped = one.attrs.get("text") == "json"
            cells = np.broadcast_to(cells, index.shape[1])
            columns[str(name)] = [json.loads(cell) for cell in cells] if escaped else cells
    return pd.DataFrame(columns)


def first_line(kind: type) -> str:
    """The first line of the docstring: what the number is and what its sign means."""
    return (inspect.getdoc(kind) or kind.__name__).split("\n")[0].strip()


def _part(name: str, value: Any) -> tuple[dict[str, Any], dict[str, xr.Variable]]:
    """A result inside a result: its variables and its axes bear the field's name before theirs."""
    inner = to_xarray(value)
    layout = {
        "kind": "result", "class": type(value).__name__,
        "layout": json.loads(inner.attrs["layout"]),
    }  # fmt: skip
    variables = {
        f"{name}.{own}": xr.Variable([f"{name}.{dim}" for dim in one.dims], one.values, one.attrs)
        for own, one in inner.variables.items()
    }
    return layout, variables


def _whole(name: str, hint: Any, layout: dict[str, Any], dataset: xr.Dataset) -> Any:
    """The result inside a result that `_part` stored."""
    made = annotations.record_class(hint)
    if made is None or made.__name__ != layout["class"]:
        raise ValueError(f"field {name} holds a {layout['class']}, not {annotations.shown(hint)}")
    start = f"{name}."
    variables = {
        str(own).removeprefix(start): xr.Variable(
            [str(dim).removeprefix(start) for dim in one.dims], one.values, one.attrs
        )
        for own, one in dataset.variables.items()
        if str(own).startswith(start)
    }
    return from_xarray(made, xr.Dataset(variables, attrs={"layout": json.dumps(layout["layout"])}))


def _header(kind: type, layouts: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": f"{kind.__module__}.{kind.__qualname__}",
        "format": FORMAT,
        "title": first_line(kind),
        "layout": json.dumps(layouts),
    }


def _attributes(metadata: Any, variable: Variable) -> dict[str, str]:
    unit = metadata.get("unit")
    found = {
        "long_name": metadata.get("means"),
        "units": _TIMES.get(unit, unit),
        "text": variable.text,
        "varies": metadata.get("varies"),
    }
    return {name: str(text) for name, text in found.items() if text}


def _agree(lengths: dict[str, tuple[int, str]], field: str, variable: Variable) -> None:
    for dim, length in zip(variable.dims, variable.values.shape, strict=True):
        known, other = lengths.setdefault(dim, (length, field))
        if known != length:
            raise ValueError(
                f"axis {dim!r} has length {known} in field {other} and {length} in field {field}: "
                "fields that share an axis have one length; rename one axis or fix the field"
            )
