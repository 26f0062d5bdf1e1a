"""The command `workbench`: which questions there are, asking one, looking at answers."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workbench import runs
from workbench.runs import experiments
from workbench.runs.command import answer
from workbench.runs.messages import errors_as_sentences, say, shown

_LIST = """\
The experiments that can be run, each with its question.

    $ workbench list
    head_ablation_ioi   Which attention heads does a model need to name the indirect object?

A file in a folder 'experiments' here, with a docstring, a frozen dataclass Config and a function
run, is one too. Packages offer theirs by an entry point in the group workbench.experiments."""

_RUN = """\
Ask one question, and keep the answer.

It is left in runs/NAME/ID/: config.json, run.json, result.nc, figure.png, report.html.

    $ workbench run head_ablation_ioi --model tiny --prompts 4
    $ workbench run head_ablation_ioi --grid seed=0,1,2 model=tiny,tiny-gqa

The options are the fields of the experiment's config: 'workbench run NAME --help' lists them. With
--grid every combination is run; after an interrupt the same command goes on, and several
processes may work on one grid. 'python -m experiments.NAME' is the same as 'workbench run NAME'.
It leaves with 0 if all went well, 1 if a run failed, 2 if the command was not understood."""

_SHOW = """\
What a run found, with what, and where to look.

    $ workbench show head_ablation_ioi                       the latest run
    $ workbench show head_ablation_ioi/model-tiny            the run whose id begins so
    $ workbench show runs/head_ablation_ioi/default_0f3a..   the run in that folder"""

_COMPARE = """\
What differs between runs, and is it more than chance?

Compares the configs, the headlines (with bounds for the difference) and the results cell by cell.

    $ workbench compare head_ablation_ioi/model-tiny head_ablation_ioi/default"""

_MODELS = """\
The models that have a name here.

A Hugging Face folder, a .gguf file, a checkpoint in TransformerLens format or a hub name
(owner/model) can be given wherever a model is asked for, too.

    $ workbench models
    $ workbench models --check      which sites of which architecture are what they promise"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; leaves with 1 if a run failed, 2 if it was not understood."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["run"] and given[1:] and not given[1].startswith("-"):
        _run(given[1], given[2:])
        return
    parser = _parser()
    options = parser.parse_args(given)
    with errors_as_sentences(show=options.errors):
        options.act(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workbench",
        description="Ask a language model how it does what it does.",
        epilog="'workbench COMMAND --help' explains a command with an example.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "list", act=_list, text=_LIST)
    run = _command(commands, "run", act=_run_nothing, text=_RUN)
    run.add_argument("name", metavar="NAME [--FIELD VALUE ...] [--grid FIELD=A,B ...]")
    show = _command(commands, "show", act=_show, text=_SHOW)
    show.add_argument("run", metavar="RUN")
    compare = _command(commands, "compare", act=_compare, text=_COMPARE)
    compare.add_argument("run", metavar="RUN", nargs="+")
    for reading in (show, compare):
        reading.add_argument("--runs", type=Path, help="the folder of all runs (else ./runs)")
    listing = _command(commands, "models", act=_models, text=_MODELS)
    listing.add_argument("--check", dest="act", action="store_const", const=_check)
    return parser


def _command(
    commands: Any, name: str, *, act: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text.partition("\n")[0],
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(act=act, errors="sentence")
    parser.add_argument(
        "--traceback",
        dest="errors",
        action="store_const",
        const="traceback",
        help="show where in the code an error came from",
    )
    return parser


def _list(options: argparse.Namespace) -> None:
    found = experiments.known()
    width = max(map(len, found), default=0)
    for name, experiment in found.items():
        print(f"{name:<{width}}   {experiment.question}")
    if not found:
        say("no experiments: there is no package 'experiments' here")


def _run(name: str, rest: list[str]) -> None:
    with errors_as_sentences(show="traceback" if "--traceback" in rest else "sentence"):
        module = experiments.imported(experiments.named(name))
    runs.main(module.run, module.Config, rest)


def _run_nothing(options: argparse.Namespace) -> None:
    say("workbench run: the name of the experiment comes first, then its options")
    raise SystemExit(2)


def _show(options: argparse.Namespace) -> None:
    run = runs.open(options.run, root=options.runs)
    print(answer(run))
    record = run.record
    commit = record.get("commit") or {}
    changed = " with changes" if commit.get("dirty") else ""
    print(f"record  {shown(run.folder / 'run.json')}\n")
    print("config  " + ", ".join(f"{name} = {value}" for name, value in run.config.items()))
    for model in record.get("models", []):
        print(f"model   {model['name']}: {model['source']}, weights {model['digest'][:12]}")
    print(f"made    {record.get('started')} in {record.get('seconds')} s, ", end="")
    print(f"commit {str(commit.get('id', 'unknown'))[:12]}{changed}")
    for warning in record.get("warnings", []):
        print(f"warned  {warning['times']} times: {warning['message']}")


def _compare(options: argparse.Namespace) -> None:
    found = [runs.open(name, root=options.runs) for name in options.run]
    print(runs.compare(*found))


def _models(options: argparse.Namespace) -> None:
    from workbench import models

    lines = {name: (load.__doc__ or "").partition("\n")[0] for name, load in models.known.items()}
    for name in models.planted.NAMES:
        full = f"{models.planted.PREFIX}{name}"
        lines[full] = f"Planted: {models.planted.truth(full).what}."
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}   {line}")


def _check(options: argparse.Namespace) -> None:
    from workbench.models import twins

    found = twins.verdicts()
    print(twins.table(found))
    broken = [name for name, conformance in found.items() if not conformance.passed]
    if broken:
        raise RuntimeError(f"{', '.join(broken)}: what our sites promise is not kept there")


if __name__ == "__main__":
    main()
