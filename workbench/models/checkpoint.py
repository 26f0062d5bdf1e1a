"""One's own toy models, saved in TransformerLens format: a state dict and a config.

Weights are `HookedTransformer.state_dict()` ("blocks.0.attn.W_Q", ...) or a bridge's own. The
config is a JSON object with the fields of TransformerLens's config (n_layers, d_model, ...).
"""

import inspect
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformer_lens import TransformerBridgeConfig
from transformer_lens.conversion_utils import convert_tl_checkpoint
from transformer_lens.model_bridge.sources import native
from transformers import AutoTokenizer

from workbench.models.bridge import Model, wrap

SUFFIXES = (".safetensors", ".pt", ".pth")
_DAMAGED = (SafetensorError, EOFError, RuntimeError, LookupError, ValueError, struct.error)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` looks like a checkpoint in TransformerLens format."""
    if path.is_file():
        return path.suffix in SUFFIXES
    if not (path / "config.json").exists():
        return False
    config = fields(path / "config.json")
    # MPT's config has n_layers too; what Hugging Face writes always has a model_type.
    return "n_layers" in config and "model_type" not in config


def fields(path: Path) -> dict[str, Any]:
    """What a config says, which must be one JSON object."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold one JSON object, found {found!r:.40}")
    return found


def load(path: Path, name: str, *, device: str, dtype: torch.dtype) -> Model:
    """The model in a checkpoint, with its tokenizer where one lies in the same folder."""
    weights, config = _files(path)
    bridge_config = _config(config)
    state = _state(weights)
    # Their own random initialisation is replaced below, so that no generator is touched.
    bridge_config.seed = 0
    bridge = native.boot(bridge_config, device=device, dtype=dtype)
    try:
        if any(key.endswith((".W_E", ".W_U", ".W_Q")) for key in state):
            state = convert_tl_checkpoint(state, bridge_config)
        _fill_biases(bridge, state)
        bridge.load_state_dict(state, strict=True)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the weights in {weights} do not fit {config}: {error}") from error
    source = f"checkpoint {weights.name}"
    return wrap(bridge, _tokenizer(path), name=name, source=source)


def _files(path: Path) -> tuple[Path, Path]:
    """The weights' file and the config's."""
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if len(found) != 1:
            listed = ", ".join(file.name for file in found) or "none"
            raise ValueError(
                f"{path} needs exactly one .safetensors, .pt or .pth file, found {listed}"
            )
        return found[0], path / "config.json"
    beside = [path.with_suffix(".json"), path.parent / "config.json"]
    for config in beside:
        if config.exists():
            return path, config
    raise ValueError(f"{path} has no config: put {beside[0].name} or config.json beside it")


def _config(path: Path) -> TransformerBridgeConfig:
    given = fields(path)
    unknown = [key for key, value in given.items() if value and key not in _known_fields()]
    if unknown:
        raise ValueError(
            f"{path} sets {', '.join(unknown)}, which TransformerLens's native model does not "
            "have: the model would compute something else. Remove what does not matter"
        )
    given |= {"architecture": None, "device": "cpu", "dtype": torch.float32}
    try:
        return TransformerBridgeConfig.from_dict(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no config of a model: {error}") from error


def _known_fields() -> set[str]:
    named = inspect.signature(TransformerBridgeConfig).parameters
    return {*named, *TransformerBridgeConfig.__dataclass_fields__} - {"kwargs"}


def _state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise ValueError(f"{path} is damaged, or no file of weights: {error!r}") from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it holds more than tensors, and opening such a file can run "
            "code. Save its state dict alone, best as safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} must hold a state dict: names and tensors, nothing else")
    return state


def _fill_biases(bridge: Any, state: dict[str, Tensor]) -> None:
    """Checkpoints trained without an output bias lack it; the bridge has one, so it is zero."""
    bias = bridge.state_dict().get("unembed.bias")
    if bias is not None:
        state.setdefault("unembed.bias", torch.zeros_like(bias))


def _tokenizer(path: Path) -> Any:
    folder = path if path.is_dir() else path.parent
    if not (folder / "tokenizer.json").exists():
        return None
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
