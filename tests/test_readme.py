"""What the README shows is what happens."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

BEFORE = """
import torch
from hooks import Site
from workbench import metrics, models, plots, tasks
model = models.load("tiny-gqa")
task = tasks.ioi(model, prompts=40, seed=0)
labels = torch.tensor([0, 1] * 20)
"""
"""What a reader of a later section has at hand."""

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no {language} block"
    return found[1]


def test_the_first_example_prints_what_stands_below_it():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block("python"), "README.md", "exec"), {"__name__": "readme"})
    assert said.getvalue() == block("text")


SMALLER = [
    ("smollm2-135m", "tiny-gqa"),
    ('kinds.of("name mover")', "alone.most_helpful(3)"),  # noise has none
    ("least_helpful(60)", "least_helpful(3)"),
    ('Site("q", 23)', 'Site("q", 1)'),
    ("prompts=16", "prompts=8"),
    ("prompts=32", "prompts=12"),
    ("train, test = task[:8], task[8:]", "train, test = task[:4], task[4:]"),
]
ROOMS = ["Patching", "Attention heads", "Neurons", "Probes"]


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_what_is_shown_of_each_room_runs_on_a_smaller_model(room, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = README.split(f"\n## {room}\n")[1].split("\n## ")[0]
    shown = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert shown
    named: dict[str, Any] = {"__name__": "readme"}
    exec(BEFORE, named)
    for code in shown:
        for whole, part in SMALLER:
            code = code.replace(whole, part)
        exec(compile(code, f"README.md, {room}", "exec"), named)


def test_every_site_in_the_table_is_the_one_it_stands_beside():
    from hooks import Site

    rows = re.findall(r"^\| `([\w.]+)`[^|]*\| `(Site\([^`]*\))`", README, re.MULTILINE)
    assert len(rows) >= 8
    for name, written in rows:
        assert Site.from_name(name) == eval(written, {"Site": Site})


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if not (Path(__file__).parents[1] / link).exists()]
    assert links and not missing
