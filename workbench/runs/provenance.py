"""How a run was made: code, versions, machine. The only place that asks git and the machine."""

import hashlib
import inspect
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "transformer-lens": "transformer-lens",
    "numpy": "numpy",
    "workbench": "interpretability-workbench",
}


def name_of(run: Callable[..., Any]) -> str:
    """The name of the experiment that a `run` function belongs to."""
    return module_of(run).removeprefix("experiments.")


def module_of(run: Callable[..., Any]) -> str:
    """The module of a function, under the name it is imported by also while it is executed."""
    if run.__module__ != "__main__":
        return run.__module__
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec:
        return spec.name.removesuffix(".__main__")
    source = Path(run.__code__.co_filename)
    if not source.is_file():
        return "notebook"
    return f"experiments.{source.stem}" if source.parent.name == "experiments" else source.stem


def docstring_of(run: Callable[..., Any]) -> str:
    """The question, method and caveat of the experiment that `run` belongs to."""
    module = sys.modules.get(run.__module__)
    return inspect.cleandoc(run.__doc__ or "") if module is None else (module.__doc__ or "")


def code_of(run: Callable[..., Any]) -> str:
    """SHA-256 of the source of the experiment, the workbench and the hooks.

    Says whether the code is the same with or without git, and between two commits.
    """
    try:
        own = Path(inspect.getsourcefile(run) or "").read_bytes()
    except (OSError, TypeError):
        own = run.__code__.co_code + repr(run.__code__.co_consts).encode()
    return hashlib.sha256(own + _library().encode()).hexdigest()


def code(run: Callable[..., Any]) -> dict[str, Any]:
    """Which code made the run: its commit where there is git, its digest in any case."""
    return {"commit": _commit(run), "code_sha256": code_of(run)}


def _commit(run: Callable[..., Any]) -> dict[str, Any] | None:
    """The commit of the repository of the experiment's file, and whether anything differs."""
    folder = Path(run.__code__.co_filename).parent
    if not folder.is_dir():
        return None
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    changed = _git(folder, "status", "--porcelain")
    return {"id": commit, "dirty": changed != ""} if commit else None


@cache
def versions() -> dict[str, str]:
    """The versions of what computes the numbers."""
    found = {"python": platform.python_version()}
    for shown, distribution in _PACKAGES.items():
        try:
            found[shown] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            found[shown] = "not installed"
    return found


def machine(device: str) -> dict[str, Any]:
    """What the numbers were computed on."""
    import torch

    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "mkl_cbwr": os.environ.get("MKL_CBWR", ""),
        "device": device,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def forget_peak_memory() -> None:
    """Measure the peak of memory from here on, where the system lets us (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_memory() -> int | None:
    """The most memory this process held, in bytes, since `forget_peak_memory` where that works."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@cache
def _library() -> str:
    """SHA-256 of all our source, read once: what is imported does not change when files do."""
    total = hashlib.sha256()
    packages = Path(__file__).parents[2]
    for package in ("hooks", "workbench"):
        for file in sorted((packages / package).rglob("*.py")):
            total.update(file.relative_to(packages).as_posix().encode() + file.read_bytes())
    return total.hexdigest()


def _git(folder: Path, *words: str) -> str | None:
    """What git answers, or None where there is no git, no repository or no answer."""
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=20, env=quiet
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
