"""What a run's record says was found, as numbers with their bounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BOUNDS = ("low", "high")


@dataclass(frozen=True)
class Headline:
    """One number of a run, with its bounds where it has them."""

    value: Any
    low: float | None = None
    high: float | None = None


def headlines(record: Mapping[str, Any]) -> dict[str, Headline]:
    """The named numbers of a run.

    A result's `headline()` gives names to numbers, texts or estimates. "low" and "high" beside
    them bound the first one, and "NAME_low" and "NAME_high" bound NAME.
    """
    given = record.get("headline")
    if not isinstance(given, Mapping):
        return {}
    names = [name for name in given if not _is_bound(name, given)]
    return {name: _one(name, given, bare="" if place else name) for place, name in enumerate(names)}


def _one(name: str, given: Mapping[str, Any], *, bare: str) -> Headline:
    value = given[name]
    if isinstance(value, Mapping):
        return Headline(value.get("value"), *(_number(value.get(bound)) for bound in _BOUNDS))
    bounds = (given.get(f"{name}_{bound}", given.get(bound) if bare else None) for bound in _BOUNDS)
    return Headline(value, *(_number(bound) for bound in bounds))


def _is_bound(name: str, given: Mapping[str, Any]) -> bool:
    owner, _, bound = name.rpartition("_")
    return bound in _BOUNDS and (not owner or owner in given)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
