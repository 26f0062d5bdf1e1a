"""What the README shows is what happens."""

import contextlib
import io
import re
from pathlib import Path

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
