"""Activations from disk: by site, document and position, in order or at random."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from hooks.sites import Site, Stream
from hooks.store.content import Content, about, digests_on
from hooks.store.layout import Layout, Places, Positions
from hooks.store.shelf import Shelf

if TYPE_CHECKING:
    import xarray as xr

Sites = Site | Iterable[Site]

_MAPPED = 1024  # batches that stay mapped while rows are read at random


@dataclass(frozen=True, eq=False)
class Rows(Mapping[Site, Tensor]):
    """Activations of some tokens, `rows[Site("z", 5)]` (row ...), and which tokens they are."""

    at: Mapping[Site, Shaped[Tensor, "row ..."]]
    document: Int[Tensor, " row"]  # counted over the whole corpus
    position: Int[Tensor, " row"]  # in its document
    token: Int[Tensor, " row"]  # the token's id

    def __getitem__(self, site: Site) -> Tensor:
        return self.at[_stored(site, self.at)]

    def __iter__(self) -> Iterator[Site]:
        return iter(self.at)

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, eq=False)
class Store:
    """Activations of a corpus on disk: at every site, one row for each token that was kept.

    Every blob is checked before its first use. One that was changed, cut or lost is a `Damaged`
    error that names it: after `store.shelf.forget(error.keys)`, the call of `write` that made
    the store computes those batches again, and only those.
    """

    shelf: Shelf
    content: Content
    _mapped: dict[int, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    @cached_property
    def layout(self) -> Layout:
        """Which row is which token of which document."""
        return Layout(self.content.survey)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the activations are from."""
        return self.content.sites

    @property
    def lengths(self) -> Int[Tensor, " document"]:
        """How many tokens each document has."""
        return self.content.survey.lengths

    @property
    def rows(self) -> int:
        """How many rows there are: all tokens, or the chosen positions of all documents."""
        return self.layout.rows

    def batches(self, sites: Sites | None = None) -> Iterator[Rows]:
        """All rows in their order, a batch at a time, memory-mapped."""
        sites = self._sites(sites)
        for batch in range(len(self.content.survey.documents)):
            yield self._slice(sites, self.layout.of_batch(batch))

    def document(self, number: int, sites: Sites | None = None) -> Rows:
        """One document's rows, memory-mapped."""
        return self._slice(self._sites(sites), self.layout.chosen([number], "all"))

    def read(
        self,
        sites: Sites | None = None,
        *,
        documents: Sequence[int] | None = None,
        positions: Positions = "all",
    ) -> Rows:
        """The rows of some documents (all) at some positions (all that were kept), in memory."""
        return self.take(self.layout.chosen(documents, positions), sites)

    def shuffled(
        self,
        sites: Sites | None = None,
        *,
        size: int,
        seed: int | torch.Generator,
        documents: Sequence[int] | None = None,
    ) -> Iterator[Rows]:
        """Every row of some documents (all) once, `size` at a time, in random order."""
        if size < 1:
            raise ValueError(f"batches of {size} rows: take at least one")
        rng = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        rows = self.layout.chosen(documents, "all")
        for part in rows[torch.randperm(len(rows), generator=rng)].split(size):
            yield self.take(part, sites)

    def take(self, rows: Int[Tensor, " row"], sites: Sites | None = None) -> Rows:
        """Any rows, by their numbers, in the order that is asked for; in memory."""
        outside = rows[(rows < 0) | (rows >= self.rows)]
        if len(outside):
            raise IndexError(f"there is no row {int(outside[0])}: rows are 0 to {self.rows - 1}")
        places = self.layout.places(rows)
        touched = places.batch.unique()
        at = {site: self._blank(site, touched, len(rows)) for site in self._sites(sites)}
        token = torch.zeros_like(rows)
        for batch in touched.tolist():
            here = (places.batch == batch).nonzero()[:, 0]
            item = self._item(batch)
            token[here] = item["tokens"][places.token[here]].long()
            for site, target in at.items():
                found = item[str(site)][places.within[here]]
                target[here, ..., : found.shape[-1]] = found
        return Rows(at, places.document, places.position, token)

    def to_xarray(self, stream: Stream) -> "xr.DataArray":
        """What is stored of `stream`, with named axes; numbers are read when they are used."""
        from hooks.store import named  # xarray takes half a second to import

        return named.array(self, stream)

    def check(self) -> None:
        """Read every byte; raises `Damaged` with all that is not as it was written."""
        self.shelf.check(self.content.keys())

    def _slice(self, sites: tuple[Site, ...], rows: Int[Tensor, " row"]) -> Rows:
        """Consecutive rows of one batch, as views of the file."""
        places: Places = self.layout.places(rows)
        key = self.content.key(int(places.batch[0]))
        item = self.shelf.mapped([key])[key]
        first, last = int(places.within[0]), int(places.within[-1])
        at = {site: item[str(site)][first : last + 1] for site in sites}
        return Rows(at, places.document, places.position, item["tokens"][places.token].long())

    def _item(self, batch: int) -> dict[str, Tensor]:
        """A batch that stays mapped until many others were used."""
        if batch not in self._mapped:
            if len(self._mapped) >= _MAPPED:
                self._mapped.pop(next(iter(self._mapped)))
            key = self.content.key(batch)
            self._mapped[batch] = self.shelf.mapped([key])[key]
        return self._mapped[batch]

    def _blank(
        self, site: Site, batches: Int[Tensor, " batch"], rows: int
    ) -> Shaped[Tensor, "row ..."]:
        """Room for rows of batches of any width; a key that is not there gets nothing."""
        wide = int(self.content.survey.widths[batches].max()) if len(batches) else 0
        shape = [wide if size < 0 else size for size in self.content.shapes[site]]
        nothing = -torch.inf if site.stream == "scores" else 0.0
        return torch.full((rows, *shape), nothing, dtype=self.content.dtype)

    def _sites(self, sites: Sites | None) -> tuple[Site, ...]:
        if sites is None:
            return self.sites
        listed = (sites,) if isinstance(sites, Site) else tuple(sites)
        return tuple(_stored(site, self.content.shapes) for site in listed)


def open(path: Path | str, *, content: str | None = None) -> Store:
    """The store at `path`; where there are several, the one whose digest begins with `content`."""
    shelf = Shelf.open(path, missing="refuse")
    contents = [
        Content.of_item(shelf.get([about(digest)])[about(digest)])
        for digest in digests_on(shelf.keys())
        if digest.startswith(content or "")
    ]
    if len(contents) != 1:
        there = "; ".join(f"{one.digest[:12]}: {one}" for one in contents) or "none"
        asked = f"one whose digest begins with {content}" if content else "one store"
        raise ValueError(
            f"asked for {asked}, {path} holds {there}. "
            "store.open(path, content=...) takes the beginning of a digest"
        )
    (only,) = contents
    missing = len(only.keys()) - len(shelf.has(only.keys()))
    if missing:
        raise ValueError(
            f"{missing} of {len(only.keys())} batches of the store at {path} are missing: make the "
            "same call of store.write again, it goes on where it stopped"
        )
    return Store(shelf, only)


def _stored(site: Site, there: Iterable[Site]) -> Site:
    if site not in there:
        raise KeyError(f"{site} was not stored; stored: {', '.join(map(str, sorted(there)))}")
    return site
