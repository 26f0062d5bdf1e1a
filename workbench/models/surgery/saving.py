"""A model in a folder, also one whose layers have different heads: all of it there, or nothing."""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from hooks import heads
from hooks.heads import LayerHeads
from workbench.models.bridge import Model, digest
from workbench.models.surgery.cutting import finished
from workbench.models.surgery.layouts import layout_of
from workbench.models.surgery.plain import assembled, parameters_of

KEY = "kept_heads"
"""In config.json: the query heads of each layer, by the numbers they had before any was removed."""


def save(model: Model, folder: str | Path) -> Path:
    """Write weights (safetensors), config and tokenizer into a new folder, for `models.load`.

    config.json is that of transformers, and says under "kept_heads" which heads each layer has.
    The folder gets its name when every byte of it is on disk.
    """
    layout_of(model.original_model)  # an architecture that could not be read back ends here
    folder = Path(folder).expanduser()
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: name a new folder")
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


def is_pruned(config: dict[str, Any]) -> bool:
    """Whether a config is that of a model some of whose heads were removed."""
    return KEY in config


def load(folder: Path, *, device: str, dtype: torch.dtype) -> Model:
    """The model that `save` wrote, after a look at every byte of its weights."""
    fields = json.loads((folder / "config.json").read_text())
    said = fields["workbench"]
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    kind = getattr(transformers, fields["architectures"][0])
    with torch.random.fork_rng(devices=[]):
        bare = kind(config)
    for module in bare.modules():  # what it was initialised with must not be taken for a weight
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(weight.to("meta"), requires_grad=False)
    group = config.num_attention_heads // _key_value_heads(config)
    kept = [LayerHeads(tuple(numbers), group) for numbers in fields[KEY]]
    try:
        tensors = dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot open the weights in {folder}: {error}") from error
    for other, name in said["tied"].items():
        tensors[other] = tensors[name]
    model = assembled(bare, tensors, layout_of(bare), kept)
    found = digest(model)
    if found != said["digest"]:
        raise ValueError(
            f"the weights in {folder} are not those that were written there ({found[:12]} instead "
            f"of {said['digest'][:12]}): the folder is damaged"
        )
    tokenizer = None
    if (folder / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = model.to(device, dtype)
    return finished(model, kept, tokenizer, name=said["name"], source=said["source"])


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
    if model.kept_heads is not None:
        layers = range(model.cfg.n_layers)
        fields[KEY] = [list(heads.at(model, layer).query) for layer in layers]
        said = {name: getattr(model.origin, name) for name in ("name", "source", "digest")}
        fields["workbench"] = {**said, "tied": tied}
    (folder / "config.json").write_text(json.dumps(fields, indent=1))
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)


def _key_value_heads(config: Any) -> int:
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
