"""Choices by name or number: one that is not among those there are is an error, no other choice."""

from typing import Any, get_args


def check_choice(name: str, given: object, choices: Any) -> None:
    """Raise unless `given`, which was said as `name`, is one of a Literal's words."""
    words = get_args(choices)
    if given not in words:
        raise ValueError(f"{name}={given!r}: choose one of {', '.join(words)}")


def check_index(name: str, given: int, count: int) -> None:
    """Raise unless `given`, which was said as `name`, is one of 0 to `count` - 1."""
    if not 0 <= given < count:
        raise ValueError(f"{name}={given!r}: there are {count}, 0 to {count - 1}")
