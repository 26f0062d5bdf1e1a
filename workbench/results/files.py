"""A result to a file and back: written whole or not at all, and checked when read."""

import hashlib
import io
import json
import os
import uuid
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from workbench.results import annotations, tables

Kind = TypeVar("Kind")


def save(result: Any, path: Path | str) -> str:
    """Write the result as netCDF 4 and give the SHA-256 of the file.

    The file appears under its name in one step, complete and on disk, or not at all.
    """
    path = Path(path)
    dataset = tables.to_xarray(result)
    dataset.attrs["content"] = _content(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    plain = {
        name: {"_FillValue": None}
        for name, variable in dataset.variables.items()
        if variable.dtype.kind == "f"
    }
    try:
        dataset.to_netcdf(beside, engine="h5netcdf", encoding=plain)
        written = hashlib.sha256(beside.read_bytes()).hexdigest()
        _to_disk(beside)
        beside.replace(path)
        _to_disk(path.parent)
    finally:
        beside.unlink(missing_ok=True)
    return written


def load(kind: type[Kind], path: Path | str, *, sha256: str | None = None) -> Kind:
    """Read a result of this kind, on the CPU; a changed file or one of another kind is refused."""
    path = Path(path)
    written = path.read_bytes()
    found = hashlib.sha256(written).hexdigest()
    if sha256 is not None and found != sha256:
        raise ValueError(
            f"{path} was changed since it was written (SHA-256 {found[:12]}, expected "
            f"{sha256[:12]}): run the study again or bring the file back from a copy"
        )
    dataset = _read(path, written)
    _check_kind(kind, path, dataset)
    try:
        result = tables.from_xarray(kind, dataset)
        intact = _content(tables.to_xarray(result)) == dataset.attrs["content"]
    except (KeyError, IndexError, StopIteration, RuntimeError, UnicodeError) as error:
        raise _damaged(path) from error
    if not intact:
        raise _damaged(path)
    return result


def digest(result: Any) -> str:
    """SHA-256 over names, kinds, shapes and bytes of the fields; equal for equal results.

    Fields that are marked as `varies`, such as seconds, are left out.
    """
    dataset = tables.to_xarray(result)
    return _content(dataset.drop_vars([n for n, v in dataset.items() if v.attrs.get("varies")]))


def _content(dataset: xr.Dataset) -> str:
    parts = hashlib.sha256(str(dataset.attrs["layout"]).encode())
    for name, variable in dataset.variables.items():
        values = np.asarray(variable.values)
        head = [str(name), list(map(str, variable.dims)), str(values.dtype), list(values.shape)]
        parts.update(json.dumps(head).encode())
        if values.dtype == object:
            parts.update(json.dumps(values.tolist()).encode())
        else:
            parts.update(np.ascontiguousarray(values).tobytes())
    return parts.hexdigest()


def _read(path: Path, written: bytes) -> xr.Dataset:
    try:
        with xr.open_dataset(
            io.BytesIO(written),
            engine="h5netcdf",
            decode_times=False,
            mask_and_scale=False,
            decode_coords=False,
        ) as dataset:
            return dataset.load()
    except Exception as error:  # whatever HDF5 makes of bytes that are not its own
        raise ValueError(
            f"{path} cannot be read as netCDF ({error}): it is no result, or it is damaged"
        ) from error


def _check_kind(kind: type, path: Path, dataset: xr.Dataset) -> None:
    if not {"kind", "format", "layout", "content"} <= set(dataset.attrs):
        raise ValueError(f"{path} is netCDF but no result of this workbench: open it with xarray")
    if int(dataset.attrs["format"]) != tables.FORMAT:
        raise ValueError(
            f"{path} has format {dataset.attrs['format']}, this version reads {tables.FORMAT}: "
            "use the version of the workbench that wrote it"
        )
    there = json.loads(dataset.attrs["layout"])
    asked = dict((field.name, hint) for field, hint in annotations.stored_fields(kind))
    stored = str(dataset.attrs["kind"])
    differing = [f"it is a {stored}"] if stored.rpartition(".")[2] != kind.__name__ else []
    if missing := sorted(set(asked) - set(there)):
        differing.append(f"missing fields {missing}")
    if unexpected := sorted(set(there) - set(asked)):
        differing.append(f"unexpected fields {unexpected}")
    for name in asked.keys() & there.keys():
        differing += _differing(name, asked[name], there[name])
    if differing:
        raise ValueError(
            f"{path} does not hold a {kind.__name__}: {'; '.join(differing)}; "
            "read it as the kind that was saved, or run the study again"
        )


def _differing(name: str, hint: Any, layout: dict[str, Any]) -> list[str]:
    wanted, wished = annotations.tensor_kind(hint), annotations.shown(hint)
    if layout["kind"] == "tensor":
        if wanted is None:
            return [f"field {name} is a tensor, asked for {wished}"]
        axes = list(annotations.axes(name, hint))
        if axes != layout["dims"]:
            return [f"field {name} has the axes {layout['dims']}, asked for {axes}"]
        if not annotations.takes(hint, layout["dtype"]):
            return [f"field {name} is {layout['dtype']}, asked for {wished}"]
    elif wanted is not None and type(None) not in annotations.options(hint):
        return [f"field {name} is a {layout['kind']}, asked for {wished}"]
    elif wanted is None and not annotations.allows(hint, layout["kind"]):
        return [f"field {name} is a {layout['kind']}, asked for {wished}"]
    return []


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is damaged: what it holds is not what was written; run the study again or bring "
        "the file back from a copy"
    )


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
