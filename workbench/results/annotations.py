"""What the annotation of a field promises: its axes, its kind of number, its classes."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jaxtyping import Shaped
from torch import Tensor

_any_dtype = getattr(Shaped[Tensor, ""], "dtypes")  # noqa: B009  # Annotated, to type checkers


def stored_fields(kind: type) -> list[tuple[Field[Any], Any]]:
    """The fields that the constructor takes, each with its annotation."""
    if not is_dataclass(kind):
        raise TypeError(f"a result is a dataclass, {kind.__name__} is not: decorate its class")
    hints = get_type_hints(kind)
    return [(field, hints[field.name]) for field in fields(kind) if field.init]


def options(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the one annotation."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def axes(name: str, hint: Any) -> tuple[str, ...]:
    """The axis names of a tensor field; a second axis of the same name gets "_2"."""
    found = tensor_kind(hint)
    if found is None:
        raise TypeError(
            f"field {name} holds a tensor but is annotated {shown(hint)}, which names no axes: "
            'annotate it like Float[Tensor, "layer head"]'
        )
    names: list[str] = []
    for word in found.dim_str.split():
        if not word.isidentifier():
            raise TypeError(
                f"axis {word!r} of field {name} is no name: write the axes of a result out, "
                'like Float[Tensor, "layer head"]'
            )
        again = names.count(word) + sum(one.startswith(f"{word}_") for one in names)
        names.append(word if word not in names else f"{word}_{again + 1}")
    return tuple(names)


def shown(hint: Any) -> str:
    """The annotation as it was written, for errors."""
    return hint.__name__ if isinstance(hint, type) else str(hint)


def tensor_kind(hint: Any) -> Any:
    """The jaxtyping annotation among the alternatives, if there is one."""
    return next((one for one in options(hint) if hasattr(one, "dim_str")), None)


def takes(hint: Any, dtype: str) -> bool:
    """Whether tensors of this dtype fit; every annotation but a tensor's lets all pass."""
    # Not isinstance: inside a function that jaxtyping checks, it would bind the axes there.
    found = tensor_kind(hint)
    return found is None or found.dtypes is _any_dtype or dtype in found.dtypes


def allows(hint: Any, stored: str) -> bool:
    """Whether a stored kind ("int", "list", "record", "none", ...) can be a value of `hint`."""
    return any(stored in _stored_as(one) for one in options(hint))


def _stored_as(hint: Any) -> set[str]:
    origin = get_origin(hint) or hint
    if origin in (Any, object):
        return {"int", "float", "bool", "str", "list", "tuple", "dict", "record", "none"}
    if origin is Literal:
        return {type(one).__name__ for one in get_args(hint)}
    if origin is type(None):
        return {"none"}
    if not isinstance(origin, type):
        return set()
    if is_dataclass(origin):
        return {"record", "result"}
    if origin is float:
        return {"float", "int"}
    names = {"int", "bool", "str", "list", "tuple", "dict"}
    bases = {Sequence: {"list", "tuple"}, Mapping: {"dict"}}
    return bases.get(origin, {origin.__name__} & names)


def is_part(value: Any) -> bool:
    """Whether a value is a dataclass with tensors: a result of its own, inside another."""
    if not is_dataclass(value) or isinstance(value, type):
        return False
    return any(isinstance(getattr(value, field.name), Tensor) for field in fields(value))


def record_class(hint: Any) -> type | None:
    """The dataclass that the annotation names, if it names one."""
    return next((one for one in options(hint) if isinstance(one, type) and is_dataclass(one)), None)


def item_class(hint: Any) -> Any:
    """Makes an item of a list of tuples: the annotated NamedTuple, else a plain tuple."""
    for one in options(hint):
        for item in get_args(one):
            if isinstance(item, type) and issubclass(item, tuple) and hasattr(item, "_make"):
                return item._make  # pyright: ignore[reportAttributeAccessIssue]
    return tuple
