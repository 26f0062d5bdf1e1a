"""What is said to the person at the terminal, and how errors are said."""

import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal


def shown(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def say(text: str) -> None:
    """A message to the person at the terminal; standard output is for answers."""
    print(text, file=sys.stderr, flush=True)


class UsageError(ValueError):
    """What was asked for is not there, or cannot be understood."""


class Terminated(KeyboardInterrupt):
    """What SIGTERM raises while errors are said as sentences: it goes the way of Ctrl-C."""


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # only there are handlers set
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextmanager
def errors_as_sentences(*, show: Literal["sentence", "traceback"] = "sentence") -> Iterator[None]:
    """When the block fails, say why and leave: with 2 for a `UsageError`, or 1.

    What stops it from outside leaves with 130 (Ctrl-C) or 143 (SIGTERM), as shells have it; both
    let what is being written be finished or taken back.
    """
    try:
        with _termination_as_interrupt():
            yield
    except KeyboardInterrupt as stop:
        how, status = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
        say(f"{how}; what is complete was kept, and the same command goes on from there")
        raise SystemExit(status) from None
    except Exception as error:
        if show == "traceback":
            traceback.print_exc()
        else:
            hint = "" if isinstance(error, UsageError) else "\n(--traceback shows where)"
            say(f"error: {sentence(error)}{hint}")
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None


def sentence(error: BaseException) -> str:
    """An error as one reads it; the type is named where the message alone may not be enough."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    plain = isinstance(error, ValueError | KeyError | OSError | TypeError) and text
    said = text if plain else f"{type(error).__name__}: {text}".rstrip(": ")
    return "\n".join([said, *getattr(error, "__notes__", ())])
