"""What a saved model says of itself, and whether it still holds: damage is an error, never silent.

config.json is sealed by a SHA-256 of all that it says, and says the SHA-256 of the tokenizer's
files and of the weights; those who load the weights compare them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hooks.heads import LayerHeads

HEADS = "kept_heads"
"""In config.json: the query heads of each layer, by the numbers they had before any was removed."""
OURS = "workbench"
"""In config.json: what transformers does not know; with the seal over all the rest."""
SEAL = "sealed"


def sealed(config: dict[str, Any], said: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config, with what is `said` of the model, and digests of it and of the folder's files.

    The weights have a digest of their own, which `said` holds.
    """
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "config.json" and path.suffix != ".safetensors"
    }
    whole = {**config, OURS: {**said, "files": files}}
    return {**whole, OURS: {**whole[OURS], SEAL: _digest(whole)}}


def is_sealed(config: dict[str, Any]) -> bool:
    """Whether a config is that of a model some of whose heads were removed."""
    return HEADS in config or OURS in config


def opened(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is said of the model in a sealed config; an error where it or a file was changed."""
    ours = config.get(OURS)
    if isinstance(ours, dict) and SEAL not in ours and "digest" in ours:
        raise ValueError(
            f"{folder} was saved before configs were sealed, so whether it is whole cannot be "
            "checked: prune the model again and save it by models.save"
        )
    if not isinstance(ours, dict) or SEAL not in ours:
        raise damaged(folder, f"its config.json has {HEADS!r} but not all of {OURS!r}")
    found = _digest({**config, OURS: {key: one for key, one in ours.items() if key != SEAL}})
    if found != ours[SEAL]:
        raise damaged(
            folder, f"its config.json is not as it was written ({found[:12]} instead of "
            f"{str(ours[SEAL])[:12]})",
        )  # fmt: skip
    for name, digest in ours["files"].items():
        path = folder / name
        if not path.is_file():
            raise damaged(folder, f"{name} is missing")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise damaged(folder, f"{name} is not as it was written")
    return ours


def kept_heads(config: dict[str, Any], layers: int, heads: int, group: int) -> list[LayerHeads]:
    """The heads of each layer; an error unless they are ones that the model has had."""
    listed = config.get(HEADS)
    if not isinstance(listed, list) or not all(isinstance(one, list) for one in listed):
        raise ValueError(f"{HEADS} must hold one list per layer, found {listed!r:.60}")
    if len(listed) != layers:
        raise ValueError(f"{HEADS} has heads of {len(listed)} layers, the model has {layers}")
    for layer, numbers in enumerate(listed):
        if not all(type(head) is int and 0 <= head < heads for head in numbers):
            raise ValueError(
                f"{HEADS} of layer {layer} are {numbers!r:.60}: heads are 0 to {heads - 1}"
            )
        if numbers != sorted(set(numbers)):
            raise ValueError(
                f"{HEADS} of layer {layer} are {numbers!r:.60}: each is listed once, in order"
            )
    return [LayerHeads(tuple(numbers), group) for numbers in listed]


def damaged(folder: Path, found: object) -> ValueError:
    """The error for a folder that is not what was written there."""
    return ValueError(
        f"cannot load {folder}: the folder is damaged: {found}. Bring it anew from where it is "
        "whole, or prune the model again and save it by models.save"
    )


def _digest(config: Mapping[str, Any]) -> str:
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
