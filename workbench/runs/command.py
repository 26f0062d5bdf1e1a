"""The command line of an experiment: its config's fields as options, its answer on the screen."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, make_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from workbench.runs import provenance
from workbench.runs.grid import cells_of
from workbench.runs.messages import errors_as_sentences, say, shown
from workbench.runs.opening import Run
from workbench.runs.recording import Again, record

Config = TypeVar("Config")


@dataclass(frozen=True)
class _How:
    grid: tuple[str, ...] = ()
    """every combination: --grid seed=0,1,2 model=tiny,tiny-gqa"""
    again: Again = "changed"
    """a run that is there is opened, and made again when code, packages or weights have changed;
    "never" opens it in any case, "always" makes it anew"""
    runs: Path | None = None
    """the folder of all runs (else the variable WORKBENCH_RUNS, else ./runs)"""
    traceback: tyro.conf.FlagCreatePairsOff[bool] = False
    """show where in the code an error came from"""


def main(
    run: Callable[[Config], Any], config: type[Config], argv: Sequence[str] | None = None
) -> None:
    """Run an experiment with a config read from the command line, and print what was found.

    The sentence and the table of the result and the paths of its page and figure go to standard
    output, everything else to standard error. Leaves with 1 if a run failed, with 2 if the
    command line cannot be understood.
    """
    given, how = _parse(run, config, argv)
    with errors_as_sentences(show="traceback" if how.traceback else "sentence"):
        if how.grid:
            _run_grid(run, given, how)
        else:
            say(f"{provenance.name_of(run)}: {given}")
            before = datetime.now(UTC).isoformat(timespec="milliseconds")
            made = record(run, given, root=how.runs, again=how.again)
            _say_how(made, before)
            print(answer(made))


def answer(run: Run) -> str:
    """What a run found, as text: sentence, table where there is one, and where to look."""
    parts = [run.result.sentence()]
    if hasattr(run.result, "table"):
        parts.append(run.result.table())
    places = [f"report  {shown(run.report)}", f"figure  {shown(run.figure)}"]
    return "\n\n".join([*parts, "\n".join(places)])


def _parse(run: Callable[..., Any], config: type, argv: Sequence[str] | None) -> tuple[Any, _How]:
    clashing = {field.name for field in fields(config)} & {field.name for field in fields(_How)}
    if clashing:
        raise ValueError(
            f"the field {', '.join(sorted(clashing))} of {config.__name__} is an option of every "
            "experiment: give the field another name"
        )
    name = provenance.name_of(run)
    flat = tyro.conf.arg(name="")
    both = make_dataclass(
        "Both", [("config", Annotated[config, flat]), ("how", Annotated[_How, flat])]
    )
    # tyro joins lines that are not set apart by an empty line or indented.
    about = re.sub(r"\n+(?=\S)", "\n\n", provenance.docstring_of(run).strip())
    text = f"{about}\n\nexample: workbench run {name} --seed 1"
    try:
        parsed = tyro.cli(both, args=argv, prog=f"workbench run {name}", description=text)
    except (ValueError, TypeError) as error:  # a config's own __post_init__ refuses
        say(f"error: {error}")
        raise SystemExit(2) from None
    return parsed.config, parsed.how


def _run_grid(run: Callable[[Any], Any], given: Any, how: _How) -> None:
    from workbench.runs.studies import study

    done = study(run, cells_of(given, how.grid), root=how.runs, again=how.again)
    print(done.table().to_string())
    if done.failures:
        say(str(done))
        raise SystemExit(1)


def _say_how(made: Run, before: str) -> None:
    took = f"{made.record['seconds']:.1f} s"
    if made.record["started"] >= before:
        say(f"run in {took}")
    else:
        say(f"opened the run of {made.record['started']} ({took}); --again always makes it anew")
    kept = made.record["warnings"]
    if kept:
        times = sum(warning["times"] for warning in kept)
        where = shown(made.folder / "run.json")
        say(f"libraries warned {times} times, of {len(kept)} different things: see {where}")
