"""Every combination of some fields' values, as configs."""

import types
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from itertools import product
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from workbench.runs.messages import UsageError

Config = TypeVar("Config")


def cells_of(base: Config, grid: Sequence[str]) -> list[Config]:
    """`base` with every combination of the values in texts such as "seed=0,1,2" and "model=a,b".

    Values are read as the type of their field. The last field named changes fastest.
    """
    values: dict[str, list[Any]] = {}
    for text in grid:
        name, equals, listed = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--grid {text}: expected FIELD=VALUE,VALUE,..., such as seed=0,1,2")
        if name in values:
            raise UsageError(f"--grid names {name} twice: list all its values once, with commas")
        values[name] = _values(base, name, listed)
    return [
        _cell(base, dict(zip(values, chosen, strict=True))) for chosen in product(*values.values())
    ]


def _cell(base: Config, chosen: dict[str, Any]) -> Config:
    try:
        return replace(base, **chosen)  # type: ignore[type-var]
    except (ValueError, TypeError) as error:
        raise UsageError(f"--grid asks for {chosen}, which the config refuses: {error}") from error


def _values(base: Any, name: str, listed: str) -> list[Any]:
    known = [field.name for field in fields(base)]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"--grid: no field {name!r}; there are {', '.join(known)}{hint}")
    default = next(field.default for field in fields(base) if field.name == name)
    if getattr(base, name) != default:
        raise UsageError(f"{name} is given by --{name} and by --grid: give it once")
    read = _reader(get_type_hints(type(base))[name], name)
    values = [read(text.strip()) for text in listed.split(",")]
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise UsageError(f"--grid {name}={listed}: {twice[0]!r} is there twice")
    return values


def _reader(kind: Any, name: str) -> Callable[[str], Any]:
    """What turns a text into a value of a field's type."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [inner for inner in get_args(kind) if inner is not types.NoneType]
        if len(kinds) == 1:
            read = _reader(kinds[0], name)
            return lambda text: None if text.lower() == "none" else read(text)
    elif get_origin(kind) is Literal:
        return lambda text: _choice(text, get_args(kind), name)
    elif kind in (int, float, str):
        return lambda text: _number(text, kind, name)
    raise UsageError(
        f"--grid cannot read values of {name}, a {kind}: it reads int, float, str and Literal. "
        "In Python: runs.study(run, configs) takes any configs"
    )


def _number(text: str, kind: type, name: str) -> Any:
    if not text:
        raise UsageError(f"--grid {name}: a value between the commas is empty")
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"--grid {name}: {text!r} is not of type {kind.__name__}") from None


def _choice(text: str, choices: tuple[Any, ...], name: str) -> Any:
    for choice in choices:
        if str(choice) == text:
            return choice
    raise UsageError(f"--grid {name}: {text!r} is not one of {', '.join(map(str, choices))}")
