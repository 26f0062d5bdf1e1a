"""Results of cells, kept as they come, so that an interrupted sweep goes on where it stopped."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Edit, HookedModel, store
from hooks.replay import Cell, Plan
from workbench.metrics import Metric
from workbench.models.bridge import digest
from workbench.tasks import Task

_LIBRARIES = ("torch", "transformers", "transformer-lens", "interpretability-workbench")
_METHOD = "effects.exact 1"  # another number whenever the same cell would give another result


_folder: ContextVar[Path | None] = ContextVar("_folder", default=None)


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """While open, every sweep that is not told otherwise keeps its results in `folder`."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def folder_for(
    keep: str | Path | None, cells: Sequence[Cell], metrics: Sequence[Metric]
) -> Path | None:
    """Where a sweep's results are kept: where it was told to, or where an open `keeping` says.

    Own functions as edits or metrics cannot be kept, which is an error only where it was asked for.
    """
    own = _own(cells, metrics)
    if keep is None:
        return None if own else _folder.get()
    if own:
        raise ValueError(
            f"{own} is a function of your own, whose results cannot be kept: nobody can tell when "
            "it has changed. Use those of hooks.edits and workbench.metrics, or keep=None"
        )
    if Path(keep).is_file():
        raise ValueError(f"keep={str(keep)!r} is a file: give a folder, there already or not")
    return Path(keep)


def _own(cells: Sequence[Cell], metrics: Sequence[Metric]) -> str:
    """The first edit or metric that is a function of the caller's; empty where there is none."""
    for metric in metrics:
        if metric.function.__module__ != Metric.__module__:
            return f"the metric {metric.name}"
    for cell in cells:
        for site, given in cell.items():
            for edit in given if isinstance(given, Sequence) else (given,):
                ours = isinstance(edit, Edit) and edit.change.__module__.startswith("hooks.")
                if not ours:
                    return f"the edit at {site}"
    return ""


@dataclass(frozen=True, eq=False)
class Kept:
    """A shelf of results, and under which key each cell of this sweep lies there.

    A key is a digest of the weights, the precision, the task, the metrics, the edits with all
    that they write, and the versions of the libraries: whatever changes, nothing old is reused.
    """

    shelf: store.Shelf
    keys: Mapping[int, str]

    @classmethod
    def of(
        cls, path: str | Path, model: HookedModel, plan: Plan, task: Task, metrics: Sequence[Metric]
    ) -> "Kept":
        """The shelf at `path`, made if there is none."""
        common = hashlib.sha256(_METHOD.encode())
        tokens = plan.recording.prompts.tokens * plan.recording.prompts.mask
        for part in (
            digest(model.original_model),  # as they are now, whatever they were when loaded
            str(plan.recording.resid[0].dtype),
            task.digest,
            *(_digest(part) for part in (tokens, task.answer, task.foil)),
            *(f"{metric.name} {metric.rows} {metric.columns}" for metric in metrics),
            *(_digest(metric.reference) for metric in metrics if metric.reference is not None),
            *(f"{name} {metadata.version(name)}" for name in _LIBRARIES),
        ):
            common.update(f"{part}\n".encode())
        digests: dict[int, str] = {}
        keys = {}
        for index in [cell for batch in plan.batches for cell in batch]:
            keys[index] = _key(common.hexdigest(), plan.cells[index], digests)
        return cls(store.Shelf.open(path), keys)

    def read(self, cells: Sequence[int]) -> dict[int, Float[Tensor, "batch metric"]]:
        """The results that are there already; damaged ones are forgotten, to be made again."""
        there = self.shelf.has([self.keys[cell] for cell in cells])
        try:
            found = self.shelf.get(sorted(there))
        except store.Damaged as damaged:
            if not damaged.keys:  # the index itself, which says how it is made again
                raise
            self.shelf.forget(damaged.keys)
            return self.read(cells)
        return {
            cell: found[self.keys[cell]]["values"] for cell in cells if self.keys[cell] in found
        }

    def write(self, values: Mapping[int, Float[Tensor, "batch metric"]]) -> None:
        """Keep the results of some cells: all of them or, when this is cut short, none."""
        self.shelf.put({self.keys[cell]: {"values": value} for cell, value in values.items()})


def _key(common: str, cell: Cell, digests: dict[int, str]) -> str:
    content = hashlib.sha256(common.encode())
    for site, given in sorted(cell.items()):
        for edit in given if isinstance(given, Sequence) else (given,):
            assert isinstance(edit, Edit)
            parts = [edit.name, edit.heads, edit.neurons, edit.positions, *edit.parts]
            said = [_part(part, digests) for part in parts]
            content.update(f"{site} {said}\n".encode())
    return content.hexdigest()


def _part(part: object, digests: dict[int, str]) -> str:
    """A part of an edit as text; what many edits share is digested once."""
    if not isinstance(part, Tensor):
        return str(part)
    if id(part) not in digests:
        digests[id(part)] = _digest(part)
    return digests[id(part)]


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    content = plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return f"{plain.dtype} {tuple(plain.shape)} {hashlib.sha256(content).hexdigest()}"
