"""One run: complete or absent, the same again, and nothing left changed behind it."""

import hashlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import workbench
from workbench import models, results, runs
from workbench.runs import folder

ROOT = str(Path(workbench.__file__).parents[1])


def started(*options: str) -> subprocess.Popen:
    """The experiment in a process of its own."""
    path = os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", "run", "noise", *options],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def seen(file: Path, lines: int) -> None:
    """Wait until the experiment has begun so many times."""
    for _ in range(600):
        if len(file.read_text().splitlines()) >= lines:
            return
        time.sleep(0.1)
    raise AssertionError("the experiment did not begin within a minute")


def test_a_run_leaves_five_files_and_nothing_else(noise, home):
    made = runs.record(noise.run, noise.Config())

    assert made.folder.parent == home / "noise"
    assert {file.name for file in made.folder.iterdir()} == {
        "config.json", "run.json", "result.nc", "figure.png", "report.html",
    }  # fmt: skip
    assert json.loads((made.folder / "config.json").read_text()) == {
        "model": "tiny", "size": 4, "shift": 0.0, "way": "plain", "seed": 0,
    }  # fmt: skip


def test_the_record_says_what_was_run_with_what(noise):
    made = runs.record(noise.run, noise.Config(seed=3))
    kept = json.loads((made.folder / "run.json").read_text())

    assert kept["experiment"] == "noise"
    assert kept["seed"] == 3
    assert kept["models"][0]["name"] == "tiny"
    assert kept["models"][0]["digest"] == made.result.model_digest
    assert kept["digests"] == {"model_digest": made.result.model_digest}
    assert kept["versions"]["torch"] == torch.__version__
    assert kept["machine"]["threads"] == torch.get_num_threads()
    assert kept["machine"]["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert kept["seconds"] > 0
    assert kept["peak_memory_bytes"] > 10_000_000
    assert kept["started"].endswith("+00:00")
    assert len(kept["code_sha256"]) == 64
    written = (made.folder / "result.nc").read_bytes()
    assert kept["result"]["sha256"] == hashlib.sha256(written).hexdigest()


def test_the_commit_is_recorded_with_whether_anything_differs_from_it(noise, tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "experiments"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("runs\ncalls\n__pycache__\n")
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)

    clean = runs.record(noise.run, noise.Config()).record["commit"]
    (tmp_path / "experiments" / "other.py").write_text("")
    dirty = runs.record(noise.run, noise.Config(seed=1)).record["commit"]

    assert clean == {"id": commit.stdout.strip(), "dirty": False}
    assert dirty == {"id": commit.stdout.strip(), "dirty": True}


def test_a_run_that_is_there_is_opened_and_not_made_again(noise, calls):
    first = runs.record(noise.run, noise.Config())
    second = runs.record(noise.run, noise.Config())

    assert calls.read_text() == "0\n"
    assert second.record == first.record


def test_a_run_is_made_again_when_the_experiment_has_changed(noise, calls):
    runs.record(noise.run, noise.Config())
    source = Path(noise.__file__)
    source.write_text(source.read_text() + "\n# changed\n")

    runs.record(noise.run, noise.Config(), again="never")
    assert calls.read_text() == "0\n"
    runs.record(noise.run, noise.Config())
    assert calls.read_text() == "0\n0\n"
    runs.record(noise.run, noise.Config(), again="always")
    assert calls.read_text() == "0\n0\n0\n"


@pytest.mark.parametrize("field", ["versions", "models", "code_sha256", "config_sha256"])
def test_a_run_made_by_something_else_is_made_again(noise, calls, field):
    made = runs.record(noise.run, noise.Config())
    other = {
        "versions": {"torch": "1.0"},
        "models": [{"name": "in memory", "source": "", "digest": ""}],
    }
    changed = dict(made.record) | {field: other.get(field, "0")}
    (made.folder / "run.json").write_text(json.dumps(changed))

    runs.record(noise.run, noise.Config())

    assert calls.read_text() == "0\n0\n"


@pytest.mark.parametrize(("digest", "times"), [("same", 1), ("other", 2)])
def test_a_run_is_made_again_when_the_weights_of_its_own_model_have_changed(
    noise, calls, monkeypatch, digest, times
):
    made = runs.record(noise.run, noise.Config())
    mine = {"name": "mine.gguf", "source": "a file", "digest": "same"}
    (made.folder / "run.json").write_text(json.dumps(dict(made.record) | {"models": [mine]}))
    load = models.load

    def found(name: str) -> object:
        origin = models.Origin(name, "a file", digest)
        return SimpleNamespace(origin=origin) if name == "mine.gguf" else load(name)

    monkeypatch.setattr(models, "load", found)
    runs.record(noise.run, noise.Config())

    assert calls.read_text() == "0\n" * times


def test_a_damaged_run_is_made_again(noise, calls):
    made = runs.record(noise.run, noise.Config())
    (made.folder / "result.nc").write_bytes(b"")

    again = runs.record(noise.run, noise.Config(), again="never")

    assert calls.read_text() == "0\n0\n"
    assert runs.open(again.folder).result.draws.shape == (4,)


def test_the_same_config_gives_the_same_bits_with_one_thread_and_with_two(noise):
    before = torch.get_num_threads()
    digests = []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            made = runs.record(noise.run, noise.Config(size=64), again="always")
            digests.append((made.record["result"]["digest"], made.record["result"]["sha256"]))
    finally:
        torch.set_num_threads(before)

    assert len(set(digests)) == 1


def test_another_seed_gives_other_numbers(noise):
    first, second = (runs.record(noise.run, noise.Config(seed=seed)) for seed in (0, 1))

    assert first.record["result"]["digest"] != second.record["result"]["digest"]


def test_warnings_of_libraries_are_kept_in_the_record(noise, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = runs.record(noise.run, noise.Config(way="warn"))

    assert logging.getLogger("transformers").level == logging.ERROR  # TransformerLens's doing
    assert "wet" not in capsys.readouterr().err
    kept = {warning["message"]: warning for warning in made.record["warnings"]}
    assert kept["the paint is wet"]["kind"] == "UserWarning"
    assert kept["the paint is wet"]["times"] == 3
    assert kept["the floor is wet"]["kind"] == "transformers.somewhere WARNING"
    assert kept["the floor is wet"]["where"].startswith("experiments/noise.py:")


def test_an_edit_that_a_library_discards_is_an_error_and_leaves_nothing(noise, home):
    with pytest.raises(runs.EditDiscardedError, match="that of the unedited model"):
        runs.record(noise.run, noise.Config(way="discard"))

    assert not (home / "noise").exists()


def test_transformer_lens_still_says_so_in_these_words():
    spec = importlib.util.find_spec("transformer_lens")
    place = Path(spec.origin).parent / "model_bridge" / "generalized_components" / "attention.py"

    assert "edit is discarded and does not affect" in place.read_text()


def test_a_run_that_fails_leaves_nothing(noise, home):
    with pytest.raises(ValueError, match="cannot be measured"):
        runs.record(noise.run, noise.Config(way="fail"))

    assert not (home / "noise").exists()
    left = [path for path in (home / folder.PARTIAL).rglob("*") if path.suffix != ".lock"]
    assert left == [home / folder.PARTIAL / "noise"]


@pytest.mark.parametrize("failing", ["save", "write", "rename"])
def test_a_full_disk_leaves_the_old_run(noise, monkeypatch, failing):
    old = runs.record(noise.run, noise.Config())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    from workbench import plots, report
    from workbench.runs import folder

    place = {"save": (plots, "save"), "write": (report, "write"), "rename": (folder, "_to_disk")}
    with monkeypatch.context() as patched:
        patched.setattr(*place[failing], full)
        with pytest.raises(OSError, match="No space left"):
            runs.record(noise.run, noise.Config(), again="always")

    assert runs.open(old.folder).record == old.record


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_in_its_place_and_is_swept_away(noise, home, calls):
    process = started("--way", "slow")
    try:
        seen(calls, 1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (home / "noise").exists()
    assert [path for path in (home / folder.PARTIAL).glob("*/*") if path.is_dir()] != []

    runs.record(noise.run, noise.Config())

    assert [path for path in (home / folder.PARTIAL).glob("*/*") if path.is_dir()] == []


@pytest.mark.slow
def test_two_processes_that_make_the_same_run_make_it_once(noise, home, calls, monkeypatch):
    monkeypatch.setenv("SLOWLY", "1")
    both = [started("--way", "slow") for _ in range(2)]
    try:
        answers = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()

    assert [process.returncode for process in both] == [0, 0], answers
    assert calls.read_text() == "0\n"
    assert answers[0][0] == answers[1][0] != ""
    assert len(list((home / "noise").iterdir())) == 1


def test_a_result_without_a_figure_is_refused_before_the_work(noise, calls):
    @dataclass(frozen=True, eq=False)
    class Undrawn(results.Result):
        mean: float

    def run(config: noise.Config) -> Undrawn:
        calls.write_text("worked")
        return Undrawn(0.0)

    run.__module__ = noise.__name__
    with pytest.raises(ValueError, match="no figure for Undrawn"):
        runs.record(run, noise.Config())

    assert calls.read_text() == ""


def test_a_config_without_a_seed_is_refused(noise):
    @dataclass(frozen=True)
    class Unseeded:
        model: str = "tiny"

    with pytest.raises(ValueError, match="no whole number 'seed'"):
        runs.record(noise.run, Unseeded())
