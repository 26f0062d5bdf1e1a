"""What libraries and models said while a run was made: warnings kept, edits that were discarded."""

import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LIBRARIES = ("transformers", "transformer_lens", "torch")
_DISCARDED = re.compile(r"(edit|return) is discarded", re.IGNORECASE)


class EditDiscardedError(RuntimeError):
    """A library said that it did not use an edit, so the numbers are of the unedited model."""


@dataclass
class Observed:
    """The warnings and the models of one run, in the order in which they came."""

    warned: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    models: list[dict[str, str]] = field(default_factory=list)

    def warnings(self) -> list[dict[str, Any]]:
        """Each warning once, with how often it came."""
        return [
            {"kind": kind, "message": message, "where": where, "times": times}
            for (kind, message, where), times in self.warned.items()
        ]

    def refuse_discarded_edits(self) -> None:
        """An error if a library said that it dropped an edit."""
        for kind, message, where in self.warned:
            if _DISCARDED.search(message):
                raise EditDiscardedError(
                    f"{where} warned ({kind}): {message} Nothing was written, because the result "
                    "would be that of the unedited model: edit a site that this model lets you "
                    "write ('workbench models --check' lists them)"
                )

    def add_model(self, origin: Any) -> None:
        """Note where a model's weights came from; a model loaded twice is noted once."""
        seen = {name: str(value) for name, value in vars(origin).items()}
        if seen not in self.models:
            self.models.append(seen)


@contextmanager
def observing() -> Iterator[Observed]:
    """While open, warnings, libraries' log messages and loaded models are noted."""
    seen = Observed()
    observers = _observers()
    with warnings.catch_warnings(record=True) as caught, _overhearing(seen):
        warnings.simplefilter("always")
        observers.append(seen.add_model)
        try:
            yield seen
        finally:
            observers.remove(seen.add_model)
            for warning in caught:
                where = _place(warning.filename, warning.lineno)
                seen.warned[warning.category.__name__, str(warning.message), where] += 1


@contextmanager
def _overhearing(seen: Observed) -> Iterator[None]:
    """Note what libraries log, also what is not printed: TransformerLens silences transformers."""
    keep = _Keep(seen)
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    loud = {handler: handler.level for logger in loggers for handler in logger.handlers}
    for logger in loggers:
        for handler in logger.handlers:
            handler.setLevel(max(handler.level, logger.getEffectiveLevel()))
        logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
        logger.addHandler(keep)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(keep)
            logger.setLevel(level)
        for handler, level in loud.items():
            handler.setLevel(level)


class _Keep(logging.Handler):
    """Notes what a library logs as a warning or worse."""

    def __init__(self, seen: Observed) -> None:
        super().__init__(logging.WARNING)
        self.seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        """Note one message."""
        kind = f"{record.name} {record.levelname}"
        self.seen.warned[kind, record.getMessage(), _place(record.pathname, record.lineno)] += 1


def _place(filename: str, line: int) -> str:
    """The last two steps of a path and the line: enough to find it, and the same everywhere."""
    return f"{'/'.join(Path(filename).parts[-2:])}:{line}"


def _observers() -> list[Callable[[Any], None]]:
    """Whom `models.load` and `models.wrap` tell about a model."""
    from workbench.models.bridge import observers

    return observers
