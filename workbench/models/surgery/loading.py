"""A pruned model from its folder, after a look at every byte of it."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from workbench.models import checkpoint
from workbench.models.bridge import Model, digest
from workbench.models.surgery import seal
from workbench.models.surgery.cutting import finished
from workbench.models.surgery.layouts import LAYOUTS, Tensors, layout_of
from workbench.models.surgery.plain import assembled


def is_pruned(config: dict[str, Any]) -> bool:
    """Whether a config is that of a model some of whose heads were removed."""
    return seal.is_sealed(config)


def load(folder: Path, *, device: str, dtype: torch.dtype) -> Model:
    """The model that `save` wrote; an error where anything in the folder is not as it was."""
    fields = checkpoint.fields(folder / "config.json")
    said = seal.opened(fields, folder)
    try:
        bare = _bare(folder, fields)
        config: Any = bare.config
        heads = config.num_attention_heads
        group = heads // (getattr(config, "num_key_value_heads", None) or heads)
        kept = seal.kept_heads(fields, config.num_hidden_layers, heads, group)
        model = assembled(bare, _tensors(folder, said["tied"]), layout_of(bare), kept)
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise seal.damaged(folder, error) from error
    found = digest(model)
    if found != said["digest"]:
        raise seal.damaged(
            folder, f"its weights are not those that were written there ({found[:12]} instead of "
            f"{said['digest'][:12]})",
        )  # fmt: skip
    tokenizer = None
    if "tokenizer.json" in said["files"]:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = model.to(device, dtype)
    return finished(model, kept, tokenizer, name=said["name"], source=said["source"])


def _bare(folder: Path, fields: dict[str, Any]) -> nn.Module:
    """A model of the kind in the config, with its buffers but without weights."""
    named = fields["architectures"][0]
    if named not in LAYOUTS:
        raise ValueError(f"it is of no kind that is pruned here: {named!r}")
    with torch.random.fork_rng(devices=[]):
        bare = getattr(transformers, named)(
            AutoConfig.from_pretrained(folder, local_files_only=True)
        )
    for module in bare.modules():  # what it was initialised with must not be taken for a weight
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(weight.to("meta"), requires_grad=False)
    return bare


def _tensors(folder: Path, tied: dict[str, str]) -> Tensors:
    tensors = dict(load_file(folder / "model.safetensors"))
    for other, name in tied.items():
        if name not in tensors:
            raise ValueError(f"there is no {name} among the weights")
        tensors[other] = tensors[name]
    return tensors
