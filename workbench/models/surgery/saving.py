"""A model in a folder, also one whose layers have different heads: all of it there, or nothing."""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from hooks import heads
from workbench.models.bridge import Model
from workbench.models.surgery import seal
from workbench.models.surgery.layouts import LAYOUTS, can_cut
from workbench.models.surgery.plain import parameters_of


def save(model: Model, folder: str | Path) -> Path:
    """Write weights (safetensors), config and tokenizer into a new folder, for `models.load`.

    config.json is that of transformers, and says under "kept_heads" which heads each layer has.
    The folder gets its name when every byte of it is on disk; `models.load` checks each.
    """
    if not can_cut(model.original_model):
        raise ValueError(
            f"{type(model.original_model).__name__} cannot be saved here: what is written and read "
            f"back are {', '.join(LAYOUTS)}. A model of transformers saves itself: "
            "model.original_model.save_pretrained(folder)"
        )
    folder = Path(folder).expanduser()
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: name a new folder")
    for above in folder.parents:
        if above.exists() and not above.is_dir():
            raise NotADirectoryError(
                f"cannot save a model in {folder}: {above} is a file; name a folder elsewhere"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    beside.mkdir()
    try:
        _write(model, beside)
        for path in [*beside.rglob("*"), beside]:
            _to_disk(path)
        beside.rename(folder)
        _to_disk(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return folder


def _write(model: Model, folder: Path) -> None:
    inner: Any = model.original_model
    weights = parameters_of(inner, tied="once")
    names = {id(one): name for name, one in weights.items()}
    every = parameters_of(inner, tied="each")
    tied = {name: names[id(one)] for name, one in every.items() if name not in weights}
    save_file(
        {name: one.detach().cpu().contiguous() for name, one in weights.items()},
        folder / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    fields = json.loads(inner.config.to_json_string(use_diff=True))
    fields["architectures"] = [type(inner).__name__]
    fields["dtype"] = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)
    if model.kept_heads is not None:
        layers = range(model.cfg.n_layers)
        fields[seal.HEADS] = [list(heads.at(model, layer).query) for layer in layers]
        said = {name: getattr(model.origin, name) for name in ("name", "source", "digest")}
        fields = seal.sealed(fields, {**said, "tied": tied}, folder)
    (folder / "config.json").write_text(json.dumps(fields, indent=1))


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
