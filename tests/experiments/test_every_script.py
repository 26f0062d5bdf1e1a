import dataclasses
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import matplotlib.image
import pytest
import torch

from workbench import results, runs

SCRIPTS = sorted(
    path.stem for path in Path(__file__).parents[2].joinpath("experiments").glob("[!_]*.py")
)
PARTS = ("Question", "Method", "Compare", "Read", "Caveat")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_rehearsal_leaves_a_run_that_can_be_read_back(name, tmp_path):
    script = import_module(f"experiments.{name}")
    run = runs.record(script.run, script.REHEARSAL, root=tmp_path)
    found = {path.name for path in run.folder.iterdir()}
    assert found == {"config.json", "run.json", "result.nc", "figure.png", "report.html"}
    kind = get_type_hints(script.run)["return"]
    again = results.load(kind, run.folder / "result.nc")
    assert results.digest(again) == results.digest(run.result)
    assert matplotlib.image.imread(run.folder / "figure.png").std() > 0.01  # not an empty picture
    assert run.result.task in (run.folder / "report.html").read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_config_gives_the_same_bits_with_one_thread_and_two(name):
    script = import_module(f"experiments.{name}")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = script.run(script.REHEARSAL)
    finally:
        torch.set_num_threads(threads)
    assert results.digest(script.run(script.REHEARSAL)) == results.digest(one)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_asks_and_how_to_read_the_answer(name):
    script = import_module(f"experiments.{name}")
    missing = [part for part in PARTS if f"\n{part} " not in script.__doc__]
    assert not missing
    assert f"python -m experiments.{name}" in script.__doc__
    assert isinstance(script.REHEARSAL, script.Config)
    assert script.REHEARSAL.model in ("tiny", "tiny-gqa")
    assert dataclasses.fields(script.Config)


TREEBANK = """\
1\tThe\tthe\tDET\t_\t_\t2\tdet\t_\t_
2\t{one}\t{one}\tNOUN\t_\t_\t3\tnsubj\t_\t_
3\t{did}\t{did}\tVERB\t_\t_\t0\troot\t_\t_
4\tnear\tnear\tADP\t_\t_\t6\tcase\t_\t_
5\tthe\tthe\tDET\t_\t_\t6\tdet\t_\t_
6\t{other}\t{other}\tNOUN\t_\t_\t3\tobl\t_\t_

"""


def test_parts_of_speech_are_those_of_a_treebank_where_one_is_given(tmp_path):
    script = import_module("experiments.probe_part_of_speech")
    nouns, verbs = ("dog", "key", "boy", "girl"), ("sat", "stayed", "left")
    sentences = [
        TREEBANK.format(one=nouns[n % 4], other=nouns[n // 4 % 4], did=verbs[n % 3])
        for n in range(20)
    ]
    path = tmp_path / "small.conllu"
    path.write_text("".join(sentences))
    config = dataclasses.replace(script.REHEARSAL, file=str(path), sentences=16)
    found = script.run(config)
    assert (found.classes, found.groups, found.examples) == (4, 16, 16 * 6)
    assert found.task == "part of speech in small"
    assert "untrained model" in found.baselines
    # Six places, four classes: where a word stands tells all of them.
    assert float(found.baseline[found.baselines.index("position alone")].min()) == 1.0
