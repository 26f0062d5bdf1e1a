"""The command `workbench`, as one types it."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import workbench
from workbench.__main__ import main

SOURCE = '''"""How long is a text?

Question   How long?
"""

from dataclasses import dataclass

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, ones

from workbench import plots, runs
from workbench.results import Result


@dataclass(frozen=True)
class Config:
    text: str = "abc"  # whose letters are counted
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Length(Result):
    """A length."""

    letters: Float[Tensor, " batch"]

    def sentence(self) -> str:
        return f"It has {len(self.letters)} letters."

    def headline(self):
        return {"letters": len(self.letters)}

    def table(self) -> str:
        return "a table"


@plots.draw.register(Length)
def _draw(result, ax=None):
    return Figure()


def run(config: Config) -> Length:
    """text -> its length"""
    if config.text == "bad":
        raise ValueError("this text has no length")
    return Length(ones(len(config.text)))


if __name__ == "__main__":
    runs.main(run, Config)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A current directory with one experiment and no runs."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()
    (tmp_path / "experiments" / "length.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKBENCH_RUNS", raising=False)
    package = importlib.import_module("experiments")
    monkeypatch.setattr(package, "__path__", list(package.__path__))
    monkeypatch.delitem(sys.modules, "experiments.length", raising=False)
    yield tmp_path
    sys.modules.pop("experiments.length", None)


def left_with(code: int, *words: str) -> None:
    """The command leaves with this exit code."""
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == code


def test_running_prints_the_answer_and_where_it_lies(folder, capsys):
    main(["run", "length", "--text", "abcd"])

    said = capsys.readouterr()
    (run,) = (folder / "runs" / "length").iterdir()
    assert said.out == (
        "It has 4 letters.\n\na table\n\n"
        f"report  runs/length/{run.name}/report.html\nfigure  runs/length/{run.name}/figure.png\n"
    )
    assert "Traceback" not in said.err


def test_runs_go_where_the_option_or_the_variable_says(folder, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "named"))
    main(["run", "length"])
    main(["run", "length", "--runs", "given"])

    assert (folder / "named" / "length").is_dir()
    assert (folder / "given" / "length").is_dir()
    assert not (folder / "runs").exists()


def test_the_list_names_each_experiment_with_its_question(folder, capsys):
    main(["list"])

    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["length"] == "How long is a text?"
    assert "head_ablation_ioi" in lines


def test_an_unknown_experiment_is_refused_with_those_that_there_are(folder, capsys):
    left_with(2, "run", "lenght")

    said = capsys.readouterr().err
    assert "no experiment 'lenght'; there are" in said
    assert said.strip().endswith("Did you mean 'length'?")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--txet", "a"], "--txet"),
        (["--seed", "a"], "--seed"),
        (["--grid", "seed=a"], "'a' is not of type int"),
        (["--grid", "sede=1"], "did you mean seed"),
        (["--again", "sometimes"], "sometimes"),
        (["stray"], "stray"),
    ],
)
def test_an_option_that_is_not_understood_is_an_error(folder, capsys, words, said):
    left_with(2, "run", "length", *words)

    assert said in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_a_failed_run_is_one_sentence_and_a_traceback_when_asked(folder, capsys):
    left_with(1, "run", "length", "--text", "bad")
    said = capsys.readouterr()
    assert "error: this text has no length" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""

    left_with(1, "run", "length", "--text", "bad", "--traceback")
    assert 'raise ValueError("this text has no length")' in capsys.readouterr().err


def test_a_grid_runs_every_combination_and_lists_what_failed(folder, capsys):
    left_with(1, "run", "length", "--grid", "text=a,bad,abc", "seed=0,1")

    said = capsys.readouterr()
    assert len(list((folder / "runs" / "length").iterdir())) == 4
    assert len(said.out.splitlines()) == 5
    assert "4 runs are complete, 2 failed" in said.err
    assert "Config(text='bad', seed=1)\n    this text has no length" in said.err


def test_showing_a_run_says_what_was_found_and_with_what(folder, capsys):
    main(["run", "length", "--text", "abcd"])
    capsys.readouterr()

    main(["show", "length"])

    said = capsys.readouterr().out
    assert said.startswith("It has 4 letters.")
    assert "config  text = abcd, seed = 0" in said


def test_showing_what_is_not_there_is_an_error(folder, capsys):
    left_with(2, "show", "length")

    assert "none yet ('workbench run NAME' makes one)" in capsys.readouterr().err


def test_comparing_says_which_configs_and_numbers_differ(folder, capsys):
    main(["run", "length", "--grid", "text=ab,abcd"])
    capsys.readouterr()

    main(["compare", "length/text-ab_", "length/text-abcd"])

    said = capsys.readouterr().out
    assert "text: ab | abcd" in said
    assert "letters: 2 -> 4: no bounds" in said


def test_the_models_are_listed_with_a_line_each(capsys):
    main(["models"])

    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"smollm2-135m", "tiny", "tiny-gqa"} <= lines.keys()


@pytest.mark.parametrize("command", ["list", "run", "show", "compare", "models"])
def test_the_help_of_a_command_has_an_example(capsys, command):
    left_with(0, command, "--help")

    assert f"$ workbench {command}" in capsys.readouterr().out


def test_the_help_of_an_experiment_is_its_docstring_and_its_fields(folder, capsys):
    left_with(0, "run", "length", "--help")

    said = capsys.readouterr().out
    assert "How long is a text?" in said
    assert "Question" in said
    assert "whose letters are counted" in said
    assert "--grid" in said


def test_help_does_not_wait_for_torch():
    program = "import sys, workbench.__main__; sys.exit('torch' in sys.modules)"

    assert started("-c", program).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", [["-m", "experiments.length"], ["experiments/length.py"]])
def test_executing_the_file_of_an_experiment_is_the_same_command(folder, capsys, way):
    done = started(*way, "--text", "abcd")
    main(["run", "length", "--text", "abcd", "--again", "never"])  # even if our code changes now

    said = capsys.readouterr()
    assert done.stdout == said.out != "", done.stderr
    assert "opened the run of" in said.err, done.stderr


def started(*words: str) -> subprocess.CompletedProcess:
    """Python in a process of its own, in the current directory."""
    root = str(Path(workbench.__file__).parents[1])
    path = os.pathsep.join(filter(None, [str(Path.cwd()), root, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
