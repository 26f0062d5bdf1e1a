"""Models kept between the cells of a study, so that each is loaded once."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Held:
    """The models of a study, and what each was like when it was loaded."""

    load: Callable[..., Any]
    models: dict[tuple[Any, ...], tuple[Any, str]] = field(default_factory=dict)

    def get(self, name: Any, **how: Any) -> Any:
        """What `models.load` gives; the same model again if nobody changed it since."""
        key = (str(name), *sorted((option, str(value)) for option, value in how.items()))
        model, state = self.models.pop(key, (None, ""))
        if model is None or _state(model) != state:
            model = self.load(name, **how)
            state = _state(model)
        else:
            _tell(model)
        self.models[key] = (model, state)
        return model

    def forget(self) -> None:
        """Let go of all models."""
        self.models.clear()


@contextmanager
def holding() -> Iterator[Held]:
    """While open, `models.load` loads a name once.

    Experiments say `models.load(...)` and need not know that they are part of a study; that is
    why the function is exchanged here, for this time, instead of a model being handed in.
    """
    from workbench import models

    places = [models, importlib.import_module("workbench.models.load")]
    held = Held(models.load)
    for place in places:
        place.load = held.get  # type: ignore[attr-defined]
    try:
        yield held
    finally:
        for place in places:
            place.load = held.load  # type: ignore[attr-defined]
        held.forget()


def _state(model: Any) -> str:
    """A model's weights and how many hooks hang on it: a cell may prune, train or leave hooks."""
    from workbench.models.bridge import digest

    hooks = sum(
        len(getattr(part, "fwd_hooks", ())) + len(part._forward_hooks) for part in model.modules()
    )
    return f"{digest(model.original_model)} {hooks}"


def _tell(model: Any) -> None:
    """Those who watch which models are loaded hear of a held one too."""
    from workbench.models.bridge import observers

    for observer in observers:
        observer(model.origin)
