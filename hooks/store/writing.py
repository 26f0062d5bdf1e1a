"""Activations of a corpus, computed once: planned, streamed, resumable."""

import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from hooks.capture import capture
from hooks.places import Positions
from hooks.prompts import Prompts
from hooks.sites import HookedModel, Site
from hooks.store.content import Content
from hooks.store.packing import packed
from hooks.store.planning import Plan, plan
from hooks.store.reading import Store
from hooks.store.shelf import Shelf
from hooks.store.survey import Batches, Kept, digest


def write(
    model: HookedModel,
    batches: Batches,
    sites: Iterable[Site],
    path: Path | str,
    *,
    key: str,
    dtype: Any = torch.float32,
    positions: Kept = "all",
) -> Store:
    """The activations of `model` on `batches` at `sites`, on disk at `path`.

    What is there already is not computed again: the same call opens it, and goes on where a
    killed one stopped, to the same bytes. "The same" is content: weights, tokenizer, tokens,
    sites, positions, dtype, versions and `key`; when any of them differs, all is computed, and
    lies beside the other in the same folder. Memory does not grow with the corpus: `batches` is
    gone through more than once, and one batch is run while the one before is written. The plan is
    printed.

    key        what the caller says about where the tokens came from, such as a corpus's digest
    dtype      on disk: float32, float16 (refused where a number is too large for it) or bfloat16
    positions  "all"; "last"; a tensor with one index for each document of the corpus, such as
               that of a marked word; an int or a list of ints: those of every document
    """
    planned = plan(model, batches, sites, path, key=key, dtype=dtype, positions=positions)
    shelf = Shelf.open(path)
    shelf.clean()
    shelf.put(dict([planned.content.to_item()]))
    if planned.missing:
        tqdm.write(str(planned), file=sys.stderr)
        _fill(shelf, model, batches, planned)
    return Store(shelf, planned.content)


def _fill(shelf: Shelf, model: HookedModel, batches: Batches, planned: Plan) -> None:
    """Run what is missing, each batch while the one before it is being written."""
    content, missing = planned.content, set(planned.missing)
    tokens = content.survey.tokens_of_batches()
    with (
        tqdm(total=int(tokens[list(missing)].sum()), desc="storing", unit="token") as bar,
        ThreadPoolExecutor(1) as beside,
    ):
        writing: Future[None] | None = None
        for number, batch in enumerate(batches):
            if number not in missing:
                continue
            item = _run(model, Prompts.of(batch), content, number)
            if writing is not None:
                writing.result()
            writing = beside.submit(shelf.put, {content.key(number): item})
            bar.update(int(tokens[number]))
        if writing is not None:
            writing.result()
    there = shelf.has(content.keys())
    if lost := {number for number in missing if content.key(number) not in there}:
        raise ValueError(
            f"batch {min(lost)} was there when the batches were counted, and not when they were "
            "run: give batches that are the same whenever they are gone through"
        )


def _run(model: HookedModel, prompts: Prompts, content: Content, number: int) -> dict[str, Any]:
    """What the shelf keeps of one batch."""
    if number >= len(content.survey.digests) or digest(prompts) != content.survey.digests[number]:
        raise ValueError(
            f"batch {number} held other tokens when it was counted: give batches that are the "
            "same whenever they are gone through"
        )
    seen = capture(
        model, prompts, content.sites, positions=_positions(content, number, len(prompts))
    )
    return packed(seen, content.dtype)


def _positions(content: Content, number: int, documents: int) -> Positions | None:
    """The chosen positions of one batch, as `capture` takes them."""
    chosen = content.survey.chosen
    if chosen is None:
        return None
    first = int(content.survey.documents[:number].sum())
    rows = chosen[first : first + documents]
    # Several positions are the same ones in every document.
    return rows[:, 0] if rows.shape[1] == 1 else rows[0].tolist()
