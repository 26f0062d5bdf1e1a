"""Choices by name: a word that is not among those there are is an error, never another choice."""

from typing import Any, get_args


def check_choice(name: str, given: object, choices: Any) -> None:
    """Raise unless `given`, which was said as `name`, is one of a Literal's words."""
    words = get_args(choices)
    if given not in words:
        raise ValueError(f"{name}={given!r}: choose one of {', '.join(words)}")
