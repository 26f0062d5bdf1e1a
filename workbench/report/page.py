"""Putting the parts of a page together."""

import base64
import inspect
import re
from importlib import resources
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from workbench.report.making import command, details, warned
from workbench.report.question import asked
from workbench.report.rows import LEVEL, parts, tables
from workbench.results import Result

_KINDS = {b"\x89PNG": "image/png", b"<?xml": "image/svg+xml", b"<svg": "image/svg+xml"}
"""The first bytes of the figures that every browser shows."""

WIDE = 1200
"""A figure of more dots in width is shown wider than the text, to stay readable."""


def write(
    path: Path | str,
    *,
    result: Result,
    docstring: str,
    config: dict[str, Any],
    record: dict[str, Any],
    figure: Path | bytes,
    name: str = "",
    interactive: str = "",
) -> None:
    """Write a run as one HTML page that needs no other file and no network.

    `docstring` is the experiment's, with its parts Question, Method, Compare, Read and Caveat;
    `record` is what was written down about how the run was made; `figure` a png or svg. `name` is
    the experiment's, as the command line knows it; the record's unless given. All words and
    numbers are escaped: nothing in them can become part of the page's code. `interactive` is HTML
    that is put in as it is, from `plots.interactive`.
    """
    name = name or str(record.get("experiment", ""))
    image = figure if isinstance(figure, bytes) else figure.read_bytes()
    source = (
        resources.files("workbench.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page.filters["prose"] = _prose
    text = page.from_string(source).render(
        asked=asked(docstring),
        name=name,
        finding=_finding(result),
        caveat=getattr(result, "caveat", ""),
        subject=_subject(result),
        meaning=_meaning(result),
        summary=_summary(result),
        tables=tables(result),
        level=LEVEL,
        image=_data_uri(image),
        interactive=Markup(interactive),
        size="wide" if _width(image) > WIDE else "",
        config=config,
        details=details(record),
        warnings=warned(record),
        command=command(name, config) if name else "",
    )
    Path(path).write_text(text, encoding="utf-8", errors="replace")


def _finding(result: Result) -> str:
    """The result's sentence without its caveat, which has a place of its own."""
    caveat = getattr(result, "caveat", "")
    return result.sentence().removesuffix(caveat).strip()


def _summary(result: Result) -> str:
    """The result's own table as text, where it is made of results that have tables of their own."""
    return str(cast(Any, result).table()) if parts(result) else ""


def _subject(result: Result) -> list[tuple[str, str]]:
    """What was asked of what: the fields that name model, task, metric and place."""
    names = ("model", "task", "metric", "metrics", "stream", "source", "ablation", "unit", "units")
    found = [(name, getattr(result, name)) for name in names if getattr(result, name, "")]
    several = [(name, one if isinstance(one, list) else [str(one)]) for name, one in found]
    return [
        (name.removesuffix("s") if len(one) == 1 else name, ", ".join(one)) for name, one in several
    ]


def _meaning(result: Result) -> list[str | list[tuple[str, str]]]:
    """The docstring of the result by paragraph: the first says what its sign means.

    A paragraph that explains fields, a line or more for each, is a list of their names and texts.
    """
    text = inspect.getdoc(type(result)) or ""
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return [_explained(block) or " ".join(block.split()) for block in blocks]


def _explained(block: str) -> list[tuple[str, str]]:
    """Names and texts of lines like "name    text", each with its indented further lines."""
    found: list[tuple[str, str]] = []
    for line in block.splitlines():
        named = re.fullmatch(r"(\w+(?:, \w+)*) {2,}(\S.*)", line)
        if named:
            found.append((named[1], named[2]))
        elif found and line.startswith("  "):
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        else:
            return []
    return found


def _prose(text: str) -> Markup:
    """A docstring's text, escaped, with its `names` set as code and its dashes as dashes."""
    dashed = escape(text.replace(" -- ", " – "))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(dashed)))


def _width(image: bytes) -> int:
    """The width of a png in dots; 0 for other images."""
    return int.from_bytes(image[16:20], "big") if image.startswith(b"\x89PNG") else 0


def _data_uri(image: bytes) -> str:
    kind = next((kind for start, kind in _KINDS.items() if image.startswith(start)), None)
    if kind is None:
        raise ValueError(
            f"the figure begins with {image[:8]!r}, which is neither png nor svg: save it as one"
        )
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"
