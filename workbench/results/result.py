"""The base of all results: they write themselves down, and show themselves in a notebook."""

import base64
import html
from collections.abc import Callable
from typing import Any

import pandas as pd
import xarray as xr

from workbench.results import tables

Drawing = Callable[[Any], bytes | None]
"""From a result to the bytes of a PNG, or None where it has no figure of its kind."""

_drawings: list[Drawing] = []


def drawn_by(drawing: Drawing) -> Drawing:
    """From now on results show this drawing of themselves in a notebook."""
    _drawings[:] = [drawing]
    return drawing


class Result:
    """What a study found. Its subclasses are frozen dataclasses whose annotations name all axes."""

    def __init_subclass__(cls) -> None:
        # IPython takes what stands in the class itself, and a dataclass has a __repr__ there.
        cls._repr_pretty_ = Result._repr_pretty_

    def sentence(self) -> str:
        """What was found, in one sentence; the first line of the docstring unless overridden."""
        return tables.first_line(type(self))

    def headline(self) -> dict[str, Any]:
        """The few numbers that a table over many runs shows; none unless overridden."""
        return {}

    def to_xarray(self) -> xr.Dataset:
        """The result with named axes."""
        return tables.to_xarray(self)

    def to_frame(self, *, field: str = "") -> pd.DataFrame:
        """One row per cell of `field`, or of the first tensor without a batch axis."""
        return tables.to_frame(self, field=field)

    def _repr_pretty_(self, printer: Any, cycle: object) -> None:
        """What IPython shows where it shows no HTML: the sentence, not the tensors."""
        printer.text(self.sentence())

    def _repr_html_(self) -> str:
        sentence = f"<p>{html.escape(self.sentence())}</p>"
        drawn = next((drawing(self) for drawing in _drawings), None)
        if not drawn:
            return sentence
        data = base64.b64encode(drawn).decode()
        alternative = html.escape(self.sentence(), quote=True)
        return f'{sentence}<img alt="{alternative}" src="data:image/png;base64,{data}">'
