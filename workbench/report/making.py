"""How a run was made, as pairs of words and values; and the command that makes it again."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

_ELSEWHERE = {"sentence", "headline", "warnings", "peak_memory_bytes", "experiment"}
"""Parts of a record that the page shows in another place, or in other words."""


def details(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything that the record says, one line for each of its parts."""
    found = [
        (str(name).replace("_", " "), _in_words(value))
        for name, value in record.items()
        if name not in _ELSEWHERE and value not in (None, "", [], {})
    ]
    peak = record.get("peak_memory_bytes")
    if isinstance(peak, int | float):
        found.append(("peak memory", f"{peak / 1e9:.2f} GB"))
    return found


def warned(record: Mapping[str, Any]) -> list[str]:
    """What libraries warned of while the run was made."""
    return [_warning(one) for one in record.get("warnings") or []]


def command(name: str, config: Mapping[str, Any]) -> str:
    """The command that makes the run again, every option spelt out."""
    words = ["workbench", "run", name, *_options(config, prefix="--")]
    return " ".join(shlex.quote(word) for word in words)


def _options(config: Mapping[str, Any], *, prefix: str) -> Iterable[str]:
    for name, value in config.items():
        option = f"{prefix}{str(name).replace('_', '-')}"
        if isinstance(value, Mapping):
            yield from _options(value, prefix=f"{option}.")
        elif isinstance(value, bool):
            yield option if value else f"{prefix}no-{str(name).replace('_', '-')}"
        elif isinstance(value, list | tuple):
            yield from (option, *map(str, value))
        else:
            yield from (option, str(value))


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = (f"{str(name).replace('_', ' ')} {_in_words(one)}" for name, one in value.items())
        return " · ".join(parts)
    if isinstance(value, list | tuple):
        return "; ".join(map(_in_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _warning(one: Any) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    where = f" ({one['where']})" if one.get("where") else ""
    times = f", {one['times']} times" if int(one.get("times") or 1) > 1 else ""
    return f"{one.get('kind', 'warning')}: {one.get('message', '')}{where}{times}"
