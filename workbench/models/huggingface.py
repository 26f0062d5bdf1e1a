"""Models in Hugging Face format: a folder, a GGUF file, or a name on the hub."""

import pickle
import struct
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from workbench.models import checkpoint
from workbench.models.bridge import Model, wrap

RemoteCode = Literal["refuse", "run"]

_PICKLED = (
    "the weights of {where} are refused: they hold more than tensors, and opening such a file can "
    "run code. Take weights that were saved as safetensors"
)


def from_folder(
    folder: Path, name: str, *, device: str, dtype: torch.dtype, remote_code: RemoteCode
) -> Model:
    """A folder with config.json, weights and, if there is one, a tokenizer. Asks no hub."""
    source = f"folder {folder.name}"
    kind = _kind(checkpoint.fields(folder / "config.json"), remote_code, folder)
    trusted: dict[str, Any] = {"local_files_only": True, "trust_remote_code": remote_code == "run"}
    try:
        model = kind.from_pretrained(folder, dtype=dtype, **trusted)
    except pickle.UnpicklingError as error:  # whose own message advises to run the code
        raise ValueError(_PICKLED.format(where=folder)) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"cannot open the model in {folder}: {error}") from error
    tokenizer = _tokenizer(folder, trusted)
    return wrap(model.to(device), tokenizer, name=name, source=source)


def from_gguf(path: Path, name: str, *, device: str, dtype: torch.dtype) -> Model:
    """A GGUF file, dequantised. Its weights are those of the file, not of the original."""
    named: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(path.parent, dtype=dtype, **named)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **named)
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise ValueError(f"transformers cannot open {path}: {error}") from error
    source = f"{path.name}, dequantised"
    return wrap(model.to(device), tokenizer, name=name, source=source)


def from_hub(name: str, *, device: str, dtype: torch.dtype, remote_code: RemoteCode) -> Model:
    """A model from the Hugging Face hub, or from its cache on this machine."""
    trusted = {"trust_remote_code": remote_code == "run"}
    try:
        config = AutoConfig.from_pretrained(name, **trusted)
        kind = _kind(config.to_dict(), remote_code, name)
        model = kind.from_pretrained(name, dtype=dtype, **trusted)
        tokenizer = AutoTokenizer.from_pretrained(name, **trusted)
    except pickle.UnpicklingError as error:
        raise ValueError(_PICKLED.format(where=name)) from error
    except (OSError, ConnectionError) as error:
        raise ConnectionError(
            f"{name!r} is not on this machine and could not be fetched from the hub "
            f"({type(error).__name__}). With a network elsewhere, save it there by "
            "save_pretrained (model and tokenizer) into one folder, bring the folder, and load "
            "that. Without any network, 'smollm2-135m' comes from the Python package index"
        ) from error
    revision = getattr(model.config, "_commit_hash", None) or "unknown revision"
    return wrap(model.to(device), tokenizer, name=name, source=f"hub, {revision}")


def _kind(config: dict[str, Any], remote_code: RemoteCode, where: object) -> Any:
    """The class that the config names, so that masked language models open as such."""
    if config.get("auto_map") and remote_code == "refuse":
        raise ValueError(
            f"{where} brings its own code ({', '.join(config['auto_map'])}), which is not run "
            'unless asked: models.load(..., remote_code="run")'
        )
    named = (config.get("architectures") or [""])[0]
    return getattr(transformers, named, AutoModelForCausalLM)


def _tokenizer(folder: Path, trusted: dict[str, Any]) -> Any:
    files = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")
    if not any((folder / file).exists() for file in files):
        return None
    return AutoTokenizer.from_pretrained(folder, **trusted)
