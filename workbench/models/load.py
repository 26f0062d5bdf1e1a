"""Which function makes the model that a name stands for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Protocol

import torch
from transformers.utils import logging

from workbench.models import checkpoint, huggingface, minilm, planted, smollm2, surgery, tiny
from workbench.models.bridge import Model


class _Loader(Protocol):
    def __call__(self, name: str, *, device: str, dtype: torch.dtype) -> Model: ...


known: Mapping[str, _Loader] = {
    "smollm2-135m": smollm2.load,
    "minilm-l6": minilm.load,
    "tiny": tiny.load,
    "tiny-gqa": tiny.load,
}
"""The models that have a name here."""

RemoteCode = Literal["refuse", "run"]


def load(
    name: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    remote_code: RemoteCode = "refuse",
) -> Model:
    """A model ready to be studied: in eval mode, gradients off, its weights' digest taken.

    `name` is one of `known`; "planted/..." with one of `planted.NAMES`; a folder in Hugging Face
    format; a `.gguf` file; a checkpoint in TransformerLens format (a folder with config.json and
    one .safetensors, .pt or .pth file, or that file with a .json of the same name beside it); or
    a name on the Hugging Face hub, "owner/model". Code that comes with weights is not run unless
    `remote_code="run"`.
    """
    with torch.random.fork_rng(devices=[]), _without_bars():
        return _load(str(name), device, dtype, remote_code)


@contextmanager
def _without_bars() -> Iterator[None]:
    """transformers draws a progress bar for every model it opens, however small."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load(name: str, device: str, dtype: torch.dtype, remote_code: RemoteCode) -> Model:
    if name in known:
        return known[name](name, device=device, dtype=dtype)
    if name.startswith(planted.PREFIX):
        return planted.load(name, device=device, dtype=dtype)
    if Path(name).expanduser().exists():
        return _from_disk(Path(name).expanduser(), name, device, dtype, remote_code)
    is_file = Path(name).suffix in (".gguf", *checkpoint.SUFFIXES)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not is_file:
        return huggingface.from_hub(name, device=device, dtype=dtype, remote_code=remote_code)
    raise ValueError(_unknown(name))


def _from_disk(
    path: Path, name: str, device: str, dtype: torch.dtype, remote_code: RemoteCode
) -> Model:
    if path.suffix == ".gguf":
        return huggingface.from_gguf(path, name, device=device, dtype=dtype)
    if checkpoint.is_checkpoint(path):
        return checkpoint.load(path, name, device=device, dtype=dtype)
    if path.is_dir() and (path / "config.json").exists():
        if surgery.is_pruned(checkpoint.fields(path / "config.json")):
            return surgery.load(path, device=device, dtype=dtype)
        return huggingface.from_folder(
            path, name, device=device, dtype=dtype, remote_code=remote_code
        )
    raise ValueError(
        f"{path} is no model: expected a folder with config.json and weights, a .gguf file, or a "
        ".safetensors, .pt or .pth file with a config of the same name (.json) beside it"
    )


def _unknown(name: str) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return (
        f"no model {name!r}{hint} Known are {', '.join(map(repr, known))}; a folder, a .gguf "
        'file or a hub name ("owner/model") works too, and there is no such file here'
    )
