"""Which experiments there are: found by reading files, without importing them."""

import ast
import importlib
import importlib.util
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from workbench.runs.messages import UsageError

_PACKAGE = "experiments"
GROUP = "workbench.experiments"
"""The entry points under which other packages offer experiments: NAME = "package.module"."""


@dataclass(frozen=True)
class Experiment:
    """One question, in one file."""

    name: str
    module: str
    file: Path

    @property
    def docstring(self) -> str:
        """What the file says about itself."""
        return ast.get_docstring(_tree(self.file)) or ""

    @property
    def question(self) -> str:
        """The first line of the docstring."""
        return next(iter(self.docstring.splitlines()), "(no docstring)")


def known() -> dict[str, Experiment]:
    """Every experiment by name: the files of the package `experiments`, and entry points."""
    found = {one.name: one for one in (*_in_package(), *_offered())}
    return dict(sorted(found.items()))


def named(name: str) -> Experiment:
    """The experiment of that name; an error that says which there are."""
    there = known()
    plain = name.removeprefix("experiments.").removesuffix(".py")
    if plain in there:
        return there[plain]
    near = get_close_matches(plain, there, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(there) or "none: is there a package 'experiments' here?"
    raise UsageError(f"no experiment {name!r}; there are {listed}.{hint}")


def imported(experiment: Experiment) -> ModuleType:
    """The module of an experiment, with its `run` and `Config`."""
    if experiment.module.startswith(f"{_PACKAGE}."):
        package = importlib.import_module(_PACKAGE)
        package.__path__[:] = [str(place) for place in _places()]
    return importlib.import_module(experiment.module)


def _in_package() -> list[Experiment]:
    found = []
    for place in reversed(_places()):  # what comes first in the path is what is imported
        for file in sorted(place.rglob("*.py")):
            name = ".".join(file.relative_to(place).with_suffix("").parts)
            if _is_experiment(file):
                found.append(Experiment(name, f"{_PACKAGE}.{name}", file))
    return found


def _places() -> list[Path]:
    """Where experiments lie: in the folder `experiments` here, as `python -m` has it, and ours."""
    spec = importlib.util.find_spec(_PACKAGE)
    ours = [Path(place) for place in spec.submodule_search_locations or []] if spec else []
    here = Path.cwd() / _PACKAGE
    return list(dict.fromkeys([here, *ours] if here.is_dir() else ours))


def _offered() -> list[Experiment]:
    found = []
    for entry in entry_points(group=GROUP):
        try:
            spec = importlib.util.find_spec(entry.module)
        except ImportError:  # its package is broken: that is for those who ask for it
            continue
        if spec and spec.origin:
            found.append(Experiment(entry.name, entry.module, Path(spec.origin)))
    return found


def _is_experiment(file: Path) -> bool:
    """Whether a file defines `run` and `Config` at its top level."""
    try:
        body = _tree(file).body
    except (SyntaxError, ValueError, OSError):
        return False
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return {"run", "Config"} <= names


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
