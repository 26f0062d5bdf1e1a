"""A store as xarray, read piece by piece when the numbers are used."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from hooks.sites import Site, Stream

if TYPE_CHECKING:
    from hooks.store.reading import Store

Key = tuple[Any, ...]


class _Lazy(BackendArray):
    """An array whose numbers `read` fetches: for each axis an int, a slice or indices."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, read: Callable[[Key], Any]) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._read = read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        kind = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, kind, self._read)


def array(store: "Store", stream: Stream) -> xr.DataArray:
    """(layer, row, ...) of one stream, with each row's document, position and token."""
    sites = [site for site in store.sites if site.stream == stream]
    if not sites:
        have = ", ".join(dict.fromkeys(site.stream for site in store.sites))
        raise KeyError(f"nothing of {stream} was stored; stored: {have}")
    shapes = {store.content.shapes[site] for site in sites}
    if len(shapes) > 1:
        raise ValueError(
            f"{stream} has other sizes in other layers ({sorted(shapes)}), which make no array: "
            "store.read one site at a time"
        )
    wide = int(store.content.survey.widths.max())
    rest = tuple(wide if size < 0 else size for size in shapes.pop())
    axes = [axis for axis in sites[0].axes if axis not in ("batch", "pos", "query")]
    # numpy has no bfloat16; in float32 its numbers are the same.
    dtype = "float16" if store.content.dtype == torch.float16 else "float32"
    shape = (len(sites), store.rows, *rest)

    def read(key: Key) -> Any:
        return _read(store, sites, key, wide=rest[-1], dtype=dtype)

    def tokens(key: Key) -> Any:
        return store.take(torch.arange(store.rows)[_index(key[0])].reshape(-1), []).token.numpy()

    places = store.layout.places(torch.arange(store.rows))
    token = indexing.LazilyIndexedArray(_Lazy((store.rows,), "int64", tokens))
    return xr.DataArray(
        xr.Variable(
            ("layer", "row", *axes), indexing.LazilyIndexedArray(_Lazy(shape, dtype, read))
        ),
        coords={
            "layer": [site.layer for site in sites],
            "document": ("row", places.document.numpy()),
            "position": ("row", places.position.numpy()),
            "token": xr.Variable("row", token),
        },
        name=stream,
    )


def _read(store: "Store", sites: list[Site], key: Key, *, wide: int, dtype: str) -> Any:
    """The numbers at one index for each axis; only the layers and rows that it names are read."""
    layer, row, *others = key
    layers = np.atleast_1d(np.arange(len(sites))[layer])
    rows = torch.arange(store.rows)[_index(row)].reshape(-1)
    taken = store.take(rows, [sites[number] for number in layers])
    parts = []
    for number in layers:
        found = taken[sites[number]].float().numpy().astype(dtype)
        beyond = [(0, 0)] * (found.ndim - 1) + [(0, wide - found.shape[-1])]
        nothing = -np.inf if sites[number].stream == "scores" else 0.0
        parts.append(np.pad(found, beyond, constant_values=nothing) if beyond[-1][1] else found)
    whole = np.stack(parts)
    for axis, chosen in enumerate(others, start=2):
        whole = whole[(slice(None),) * axis + (np.atleast_1d(chosen) if _one(chosen) else chosen,)]
    dropped = tuple(axis for axis, chosen in enumerate(key) if _one(chosen))
    return whole.squeeze(axis=dropped) if dropped else whole


def _one(chosen: Any) -> bool:
    return isinstance(chosen, int | np.integer)


def _index(chosen: Any) -> Any:
    return torch.from_numpy(np.asarray(chosen)) if isinstance(chosen, np.ndarray) else chosen
