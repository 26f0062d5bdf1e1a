"""Is a run that is there still what its config would give now?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.runs import provenance
from workbench.runs.folder import digest_of
from workbench.runs.opening import Run, open


def is_current(place: Path, run: Callable[[Any], Any], config: Any, *, again: str) -> Run | None:
    """The run at `place`, if it is whole, of this config, and made by what would make it now.

    With `again="never"` it is enough that it is whole and of this config.
    """
    if again == "always" or not place.exists():
        return None
    try:
        found = open(place)
    except (ValueError, OSError):
        return None
    if found.record.get("config_sha256") != digest_of(config):
        return None
    return found if again == "never" or not changes(found, run) else None


def changes(found: Run, run: Callable[[Any], Any]) -> list[str]:
    """What differs between what made a run and what would make it now, as words."""
    differing = []
    if found.record.get("code_sha256") != provenance.code_of(run):
        differing.append("the code")
    if found.record.get("versions") != provenance.versions():
        differing.append("the versions of packages")
    if not differing and not _same_models(found.record.get("models", [])):
        differing.append("the weights of a model")
    return differing


def _same_models(recorded: list[dict[str, str]]) -> bool:
    """Whether each model loads to the weights it had. Ours are pinned by the code itself."""
    from workbench import models

    for model in recorded:
        if model["name"] in models.known:
            continue
        try:
            origin = models.load(model["name"]).origin
        except Exception:  # gone, or held in memory only: it has to be run to know
            return False
        if origin.digest != model["digest"]:
            return False
    return True
