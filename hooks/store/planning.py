"""What storing will take, before any of it is done: tokens, bytes and time."""

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from hooks.capture import capture
from hooks.prompts import Prompts
from hooks.sites import HookedModel, Site
from hooks.store import disk
from hooks.store.content import Content, about, describe, differing, digests_on
from hooks.store.packing import flat
from hooks.store.shelf import Shelf
from hooks.store.survey import Batches, Kept, survey

_TRIAL = 128  # tokens that are run to see how long it takes and how wide the activations are
_ROWS_OF_INDEX = 512  # bytes that a batch takes beside its activations


@dataclass(frozen=True, eq=False)
class Plan:
    """What a store will hold, what of it is missing, and the cost of that.

    `str(plan)` says it in a sentence.
    """

    content: Content
    missing: tuple[int, ...]  # batches that are to be run
    bytes: int  # to be written
    free: int  # bytes on the disk now
    seconds: float  # about so long, by a trial on the first documents
    unlike: tuple[str, ...]  # in what the store that lies there and is most like it differs

    def __str__(self) -> str:
        batches, missing = len(self.content.survey.documents), len(self.missing)
        there = f"; {batches - missing} of {batches} batches are there already"
        other = f"; what lies there too differs in {', '.join(self.unlike)}"
        return (
            f"{self.content}: {self.bytes / 1e9:.3f} GB to write, {self.free / 1e9:.1f} GB are "
            f"free; about {self.seconds:.0f} s{there * (missing < batches)}"
            f"{other * bool(self.unlike)}"
        )


def plan(
    model: HookedModel,
    batches: Batches,
    sites: Iterable[Site],
    path: Path | str,
    *,
    key: str,
    dtype: Any = torch.float32,
    positions: Kept = "all",
) -> Plan:
    """What `write` with the same arguments would do; nothing is written.

    Goes through the batches once and runs a few documents. Refused with the numbers when the
    disk has not the room.
    """
    path, surveyed = Path(path), survey(batches, positions)
    said = describe(model, surveyed, sites, key=key, dtype=dtype)
    content, there, unlike = _held(path, Content(said, surveyed, {}))
    missing = tuple(n for n, one in enumerate(content.keys()) if one not in there)
    seconds = 0.0
    if missing or not content.shapes:
        shapes, pace = _trial(model, batches, content.sites)
        content = Content(said, surveyed, shapes)
        seconds = pace * int(surveyed.tokens_of_batches()[list(missing)].sum())
    planned = Plan(content, missing, size(content, missing), _free(path), seconds, unlike)
    if planned.bytes > planned.free:
        raise OSError(
            errno.ENOSPC,
            f"the disk has not the room for {planned}. Take fewer sites or positions, a smaller "
            "dtype, or another disk",
            str(path),
        )
    return planned


def size(content: Content, batches: Iterable[int]) -> int:
    """Bytes that some of the batches take on disk."""
    survey, each = content.survey, content.dtype.itemsize
    rows, tokens = survey.rows_of_batches(), survey.tokens_of_batches()
    total = 0
    for batch in batches:
        width = int(survey.widths[batch])
        numbers = sum(prod(width if n < 0 else n for n in s) for s in content.shapes.values())
        total += int(rows[batch]) * numbers * each + int(tokens[batch]) * 4
        total += _ROWS_OF_INDEX + 128 * len(content.shapes)
    return total


def _held(path: Path, content: Content) -> tuple[Content, set[str], tuple[str, ...]]:
    """The content as it was described on disk, its batches that are there, and what is unlike it.

    What is unlike it is looked for only where it was not begun.
    """
    try:
        shelf = Shelf.open(path, missing="refuse")
    except FileNotFoundError:
        return content, set(), ()
    own, digests = content.digest, digests_on(shelf.keys())
    there = shelf.has(content.keys())
    described = [
        Content.of_item(shelf.get([about(one)])[about(one)])
        for one in ([own] if own in digests else digests)
    ]
    if own in digests:
        return described[0], there, ()
    unlike = sorted((differing(content.said, other.said) for other in described), key=len)
    return content, there, tuple(unlike[0]) if unlike else ()


def _trial(
    model: HookedModel, batches: Batches, sites: Iterable[Site]
) -> tuple[Mapping[Site, tuple[int, ...]], float]:
    """The shape of one activation of each site, and seconds for each token."""
    first = Prompts.of(next(iter(batches)))
    prompts = first[: max(1, _TRIAL // first.tokens.shape[1])]
    sites = list(sites)
    capture(model, prompts.tokens[:1, :1], sites)  # what is done only once is not in the time
    began = perf_counter()
    seen = capture(model, prompts, sites)
    rows = {site: flat(seen, site) for site in sites}
    shapes = {}
    for site, activations in rows.items():
        shape = tuple(activations.cpu().shape[1:])
        shapes[site] = (*shape[:-1], -1) if "key" in site.axes else shape
    seconds = perf_counter() - began
    return shapes, seconds / int(prompts.lengths.sum())


def _free(path: Path) -> int:
    """Bytes that are free where `path` is or will be."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    return disk.free(there)
