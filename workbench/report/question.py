"""What an experiment asks, from the five parts of its docstring."""

import inspect
import re
from dataclasses import dataclass

_PART = re.compile(r"([A-Z][a-z]+) {2,}(\S.*)")
"""A part's name at the left edge, then its text; what continues it is indented."""


@dataclass(frozen=True)
class Asked:
    """An experiment's docstring, taken apart."""

    title: str
    introduction: list[str]
    parts: dict[str, str]

    def part(self, name: str) -> str:
        """The text of a part, empty where the docstring has none of that name."""
        return self.parts.get(name, "")


def asked(docstring: str) -> Asked:
    """The title, what stands before the parts, and the parts: Question, Method, Compare, and so on.

    Lines that end a paragraph early are joined. An indented block of its own, as the command at
    the end is, belongs to no part.
    """
    title, _, rest = inspect.cleandoc(docstring).partition("\n")
    introduction, parts = [], {}
    for block in re.split(r"\n\s*\n", rest.strip("\n")):
        name = ""
        for line in block.splitlines():
            found = _PART.fullmatch(line)
            if found:
                name, parts[found[1]] = found[1], found[2]
            elif name:
                parts[name] += f" {line.strip()}"
        if not name and block.strip() and not block.startswith(" "):
            introduction.append(" ".join(block.split()))
    return Asked(title.strip(), introduction, parts)
