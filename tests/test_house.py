"""Rules of the house that no linter knows."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [p for room in ("hooks", "workbench", "experiments") for p in (ROOT / room).rglob("*.py")]
VAGUE = {"utils", "helpers", "common", "types", "misc"}


def test_no_file_has_a_name_that_says_nothing():
    assert not [path for path in SOURCES if path.stem in VAGUE]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_has_outgrown_its_plan(path):
    assert len(path.read_text().splitlines()) <= 300


def test_the_top_level_is_what_was_agreed():
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    kept = {"hooks", "workbench", "experiments", "notebooks", "tests"}
    assert kept <= folders
    assert folders - kept <= {"runs", "build", "dist", "interpretability_workbench.egg-info"}
