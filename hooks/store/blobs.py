"""Items to bytes and back, as safetensors: no code is ever run by reading them."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hooks.store.damage import listed

Items = Mapping[str, Mapping[str, Tensor]]

_LONGEST = 500  # characters of a key or a name


def check(items: Items) -> None:
    """Raise unless these items can be written and will be found again."""
    for key, tensors in items.items():
        if not _plain(key):
            raise ValueError(
                f"{key[:80]!r} cannot be a key: use 1 to {_LONGEST} printable characters"
            )
        if not tensors:
            raise ValueError(f"key {key!r} has no tensors: leave it out, or put an empty tensor")
        for name, tensor in tensors.items():
            if not _plain(name) or "/" in name:
                raise ValueError(
                    f"{name[:80]!r} cannot name a tensor of {key!r}: "
                    f"use 1 to {_LONGEST} printable characters without '/'"
                )
            if tensor.layout != torch.strided or tensor.is_quantized:
                raise ValueError(
                    f"{name!r} of {key!r} is {tensor.layout} and {tensor.dtype}: "
                    "put it as a dense tensor, such as tensor.to_dense()"
                )


def packed(items: Items) -> bytes:
    """The items as one safetensors file; equal items are equal bytes."""
    flat: dict[str, Tensor] = {}
    memory: set[int] = set()
    for key, tensors in items.items():
        for name, tensor in tensors.items():
            plain = tensor.detach().cpu().contiguous()
            storage = plain.untyped_storage()
            # safetensors takes no two tensors that share memory.
            if storage.data_ptr() in memory or storage.nbytes() != plain.nbytes:
                plain = plain.clone()
            memory.add(storage.data_ptr())
            flat[f"{key}/{name}"] = plain
    return safetensors.torch.save(dict(sorted(flat.items())))


def unpacked(content: bytes) -> dict[str, dict[str, Tensor]]:
    """The items that were packed."""
    items: dict[str, dict[str, Tensor]] = {}
    for place, tensor in safetensors.torch.load(content).items():
        key, _, name = place.rpartition("/")
        items.setdefault(key, {})[name] = tensor
    return items


def digest(content: bytes) -> str:
    """The name of the blob with this content."""
    return hashlib.sha256(content).hexdigest()


def read(path: Path, keys: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """These keys of the blob at `path`; ValueError says in which way it is not what was written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError("the file is missing") from None
    _check_digest(path, digest(content), len(content))
    return _only(keys, unpacked(content))


def mapped(path: Path, keys: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """The same without reading: the system brings what is used into memory, and drops it again.

    A tensor can be written to without harm: the file stays what it is.
    """
    items: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            for place in file.keys():
                key, _, name = place.rpartition("/")
                items.setdefault(key, {})[name] = file.get_tensor(place)
    except FileNotFoundError:
        raise ValueError("the file is missing") from None
    return _only(keys, items)


def verify(path: Path) -> None:
    """Read every byte of the blob at `path`; ValueError unless they are what was written."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            _check_digest(path, found, file.tell())
    except FileNotFoundError:
        raise ValueError("the file is missing") from None


def state(path: Path) -> tuple[int, ...]:
    """What changes when the file at `path` is replaced or written to; empty if there is none."""
    try:
        told = path.stat()
    except FileNotFoundError:
        return ()
    return (told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns)


def whole(path: Path) -> dict[str, str]:
    """The keys of a blob that is what was written, each with the blob's name; else none."""
    try:
        content = path.read_bytes()
        held = unpacked(content) if digest(content) == path.stem else {}
    except (OSError, SafetensorError):
        return {}
    return dict.fromkeys(held, path.stem)


def _check_digest(path: Path, found: str, size: int) -> None:
    if found != path.stem:
        raise ValueError(f"its {size} bytes are not those written (SHA-256 {found[:12]})")


def _only(keys: Iterable[str], items: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    if absent := set(keys) - set(items):
        raise ValueError(f"it is whole, but does not hold {listed(absent)}: the index is wrong")
    return {key: items[key] for key in keys}


def _plain(name: str) -> bool:
    return 0 < len(name) <= _LONGEST and name.isprintable()
