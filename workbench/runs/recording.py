"""Making one run and writing down what happened."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from workbench.runs import provenance
from workbench.runs.folder import (
    building,
    cells_of,
    digest_of,
    id_of,
    place_of,
    publish,
    root_folder,
    sweep,
)
from workbench.runs.freshness import is_current
from workbench.runs.observed import observing
from workbench.runs.opening import Run
from workbench.runs.seeds import seeded

Config = TypeVar("Config")
Again = Literal["changed", "never", "always"]
"""When a run that is there is made again: when what made it has changed, never, or always."""


def record(
    run: Callable[[Config], Any],
    config: Config,
    *,
    root: Path | str | None = None,
    again: Again = "changed",
    waiting: float | None = None,
) -> Run:
    """Run once and leave config, result, figure, page and record in `root`/NAME/ID.

    The folder is complete or absent. A run that is there already is opened instead of made again,
    if the code (of the experiment, the workbench and the hooks), the versions of the packages and
    the weights of the models are those that made it; otherwise it is made again and replaced.
    `again="never"` opens it whatever has changed, `again="always"` makes it anew. Two processes
    that make the same run wait for each other, at most `waiting` seconds if they are given.

    What the sweeps of a run have done is kept until the run is complete: interrupted or killed, the
    same run goes on where it stopped, to the same result.
    """
    from workbench import effects  # here, so that --help does not wait for torch

    _check(config)
    home = root_folder(root)
    place = place_of(home, provenance.name_of(run), id_of(config))
    _refuse_without_figure(run)
    with building(place, waiting=waiting) as scratch:
        found = is_current(place, run, config, again=again)
        if found is not None:
            return found
        kept = cells_of(place)
        if again == "always":
            shutil.rmtree(kept, ignore_errors=True)
        with effects.keeping(kept):
            made = _make(run, config, scratch=scratch, place=place)
        publish(scratch, place)
        shutil.rmtree(kept, ignore_errors=True)
    sweep(home)
    return made


def _make(run: Callable[[Any], Any], config: Any, *, scratch: Path, place: Path) -> Run:
    """Everything a run leaves behind, in `scratch`; the record is written last."""
    from workbench import plots, report, results

    record, result = _observed(run, config)
    kind = type(result)
    module = provenance.module_of(run) if kind.__module__ == "__main__" else kind.__module__
    written = {"kind": f"{module}:{kind.__qualname__}"}
    written["sha256"] = results.save(result, scratch / "result.nc")
    written["digest"] = results.digest(result)
    record = {"experiment": place.parent.name, "id": place.name, "result": written} | record
    plots.save(result, scratch / "figure.png")
    resolved = asdict(config)
    report.write(
        scratch / "report.html",
        result=result,
        docstring=provenance.docstring_of(run),
        config=resolved,
        record=record,
        figure=scratch / "figure.png",
        interactive=plots.interactive(result),
    )
    _write(scratch / "config.json", resolved)
    _write(scratch / "run.json", record)
    return Run(place.parent.name, place.name, place, resolved, record, kind)


def _observed(run: Callable[[Any], Any], config: Any) -> tuple[dict[str, Any], Any]:
    """The result of a run, and what is to be known about how it came about."""
    started, clock = datetime.now(UTC), time.perf_counter()
    provenance.forget_peak_memory()
    with observing() as seen, seeded(config.seed):
        result = run(config)
    seconds = time.perf_counter() - clock
    seen.refuse_discarded_edits()
    return {
        "started": started.isoformat(timespec="milliseconds"),
        "seconds": round(seconds, 3),
        "peak_memory_bytes": provenance.peak_memory(),
        **_found(result),
        "config_sha256": digest_of(config),
        "seed": config.seed,
        "models": seen.models,
        **provenance.code(run),
        "versions": provenance.versions(),
        "machine": provenance.machine(str(getattr(config, "device", "cpu"))),
        "warnings": seen.warnings(),
    }, result


def _found(result: Any) -> dict[str, Any]:
    """What a result says of itself: its sentence, its headline, the digests that it carries."""
    held = {field.name: getattr(result, field.name) for field in fields(result)}
    return {
        "sentence": result.sentence(),
        "headline": {name: plain(value) for name, value in result.headline().items()},
        "digests": {name: text for name, text in held.items() if name.endswith("digest")},
    }


def plain(value: Any) -> Any:
    """A headline as JSON holds it: a number, a text, or an estimate with its bounds."""
    if hasattr(value, "value") and hasattr(value, "low"):
        names = ("value", "low", "high", "n", "level")
        return {name: plain(getattr(value, name)) for name in names if hasattr(value, name)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    return value.item() if hasattr(value, "item") else value


def _refuse_without_figure(run: Callable[[Any], Any]) -> None:
    """Say before the work, not after it, that its result cannot be drawn."""
    from workbench import plots, results

    try:
        kind = get_type_hints(run).get("return")
    except (NameError, TypeError):  # annotations that only a type checker can read
        return
    if not isinstance(kind, type) or not issubclass(kind, results.Result):
        return
    if plots.draw.dispatch(kind) is plots.draw.dispatch(object):
        raise ValueError(
            f"there is no figure for {kind.__name__}, and a run leaves one: write a function from "
            "it to a Figure and register it with @plots.draw.register"
        )


def _check(config: Any) -> None:
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"a config is a frozen dataclass, found {config!r}: see any experiment")
    if not isinstance(getattr(config, "seed", None), int):
        raise ValueError(
            f"{type(config).__name__} has no whole number 'seed': add 'seed: int = 0', so that "
            "the run can be made again"
        )


def _write(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")
