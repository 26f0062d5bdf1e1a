import base64
import html
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from workbench import report
from workbench.heads import HeadEffects
from workbench.results import Result

PNG = b"\x89PNG\r\n\x1a\n and so on"
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A real image of one dot, for the browser."""

DOCSTRING = """Which heads matter?

Some words before the parts.

Question   What is asked, on a line
           and the next?
Method     Ablate each head.
Compare    The same prompts without.
Read       Negative: it helped.
Caveat     Backups hide -- beware.

    python -m experiments.heads --prompts 3
"""
CONFIG = {"model": "tiny", "prompts": 16, "batch_size": 4, "words": ["a", "b c"], "seed": 0}
RECORD = {
    "experiment": "heads",
    "commit": {"id": "abc123", "dirty": False},
    "models": [{"name": "tiny", "source": "made here", "digest": "beef"}],
    "versions": {"torch": "2.13"},
    "seed": 0,
    "seconds": 1.5,
    "peak_memory_bytes": 2_500_000_000,
    "warnings": [{"kind": "UserWarning", "message": "careful", "where": "a.py:3", "times": 2}],
}


def effects(*, layers=7, heads=9, **changed):
    generator = torch.Generator().manual_seed(0)
    per_prompt = torch.randn(layers, heads, 16, generator=generator)
    mean = per_prompt.mean(dim=-1)
    fields = {
        "effect": mean,
        "low": mean - 0.5,
        "high": mean + 0.5,
        "p": torch.rand(layers, heads, generator=generator),
        "per_prompt": per_prompt,
        "baseline": torch.ones(16),
        "metric": "logit_diff",
        "unit": "nats",
        "ablation": "zero",
        "task": "ioi",
        "task_digest": "t",
        "model": "tiny",
        "model_digest": "m",
    }
    return HeadEffects(**(fields | changed))


@dataclass(frozen=True, eq=False)
class Words(Result):
    """How often each word was seen. Higher: more often."""

    count: Float[Tensor, " word"]
    word: list[str] = field(metadata={"axis": "word"})
    text: list[str] = field(metadata={"axis": "word"})


class Page(HTMLParser):
    """What a page holds, as a reader of HTML sees it."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text, self.rows = Counter(), [], [], []
        self.last = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        self.last = tag

    def handle_data(self, data):
        self.text.append(data)
        if self.last == "td" and self.rows and data.strip():
            self.rows[-1].append(data.strip())


@pytest.fixture
def written(tmp_path):
    def write(result=None, **changed):
        options = {
            "docstring": DOCSTRING,
            "config": CONFIG,
            "record": RECORD,
            "figure": PNG,
        } | changed
        report.write(tmp_path / "report.html", result=result or effects(), **options)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def words_of(source):
    return " ".join(" ".join(Page(source).text).split())


def test_every_part_of_the_docstring_is_on_the_page(written):
    text = words_of(written())
    for part in (
        "Which heads matter?",
        "Some words before the parts.",
        "What is asked, on a line and the next?",
        "Ablate each head.",
        "The same prompts without.",
        "Negative: it helped.",
        "Backups hide – beware.",
    ):
        assert part in text
    assert "python -m experiments.heads --prompts 3" not in text


def test_a_docstring_without_parts_still_makes_a_page(written):
    assert "Only a title" in words_of(written(docstring="Only a title"))
    assert "heads" in words_of(written(docstring=""))


def test_the_page_says_what_was_found_and_what_the_sign_means(written):
    result = effects()
    text = words_of(written(result))
    assert result.sentence() in text
    assert "Negative: the head was helping." in text
    assert "p is corrected for testing every head at once" in text


def test_the_caveat_of_a_result_stands_alone_and_once(written):
    text = words_of(written(effects(caveat="Caveat: it is all noise.")))
    assert text.count("it is all noise.") == 1
    assert 'id="result-caveat"' in written(effects(caveat="Caveat: it is all noise."))
    assert 'id="result-caveat"' not in written(effects())


def test_the_page_says_how_it_was_made_and_how_to_make_it_again(written):
    text = words_of(written())
    options = "--model tiny --prompts 16 --batch-size 4 --words a 'b c' --seed 0"
    assert f"workbench run heads {options}" in text
    for part in ("abc123", "made here", "beef", "torch 2.13", "1.5", "2.50 GB"):
        assert part in text
    assert "UserWarning: careful (a.py:3), 2 times" in text


def test_the_table_holds_every_head_once_strongest_first(written):
    result = effects()
    rows = [row for row in Page(written(result)).rows if row]
    seen = [(int(row[0]), int(row[1])) for row in rows]
    order = result.effect.abs().flatten().argsort(descending=True).tolist()
    assert seen == [divmod(at, 9) for at in order]


def test_a_row_shows_value_bounds_and_p_and_is_marked_where_significant(written):
    values = torch.full((1, 2), -1.5)
    values[0, 1] = 0.25
    p = torch.tensor([[0.05, 0.4]])
    result = effects(layers=1, heads=2, effect=values, low=values - 1, high=values + 1, p=p)
    source = written(result)
    rows = [row for row in Page(source).rows if row]
    assert rows[0] == ["0", "0", "−1.500", "[−2.500, −0.500]", "0.0500"]
    assert rows[1] == ["0", "1", "+0.250", "[−0.750, +1.250]", "0.4000"]
    assert source.count('<tr class="marked">') == 1
    assert source.index('<tr class="marked">') < source.index("−1.500")


def test_missing_and_endless_numbers_are_shown_and_kept_apart_when_sorting(written):
    values = torch.tensor([[torch.nan, torch.inf, 1.0]])
    source = written(effects(layers=1, heads=3, effect=values, low=values, high=values))
    keys = [value for tag, name, value in Page(source).attributes if name == "data-key"]
    assert {"", "inf", "1.0"} <= set(keys)
    assert "+∞" in source


def test_columns_of_words_are_shown_as_words(written):
    source = written(Words(torch.tensor([1.0, 2.0]), ["<b>", "c"], ["x & y", "z"]))
    assert "x &amp; y" in source
    assert "<b>" not in source


def test_a_page_of_many_rows_keeps_the_strongest_and_says_so(written):
    source = written(effects(layers=50, heads=50))
    assert len([row for row in Page(source).rows if row]) == 2000
    assert "The first 2000 of 2500 rows" in words_of(source)


HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


def test_nothing_in_the_data_can_become_part_of_the_page(written):
    plain = Page(written(effects(caveat="x")))
    source = written(
        effects(
            **dict.fromkeys(("model", "task", "metric", "unit", "ablation", "caveat"), HOSTILE)
        ),
        docstring=DOCSTRING.replace("Which", HOSTILE).replace("Ablate", f"`{HOSTILE}`"),
        config=CONFIG | {"model": HOSTILE, "words": [HOSTILE]},
        record=RECORD | {"seed": HOSTILE, "warnings": [HOSTILE], "versions": {HOSTILE: HOSTILE}},
        name=HOSTILE,
    )
    found = Page(source)
    assert found.tags["script"] == plain.tags["script"] == 1
    assert found.tags["img"] == plain.tags["img"] == 1
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert "<script>alert" not in source
    assert "<script>alert(1)</script>" in "".join(found.text)


def test_a_word_in_backticks_becomes_code_only_after_it_was_escaped(written):
    source = written(docstring="Title\n\nMethod     Take `<b>p</b>` so.\n")
    assert "<code>&lt;b&gt;p&lt;/b&gt;</code>" in source


def test_the_page_asks_nothing_of_any_other_machine(written):
    source = written()
    for tag, name, value in Page(source).attributes:
        if name in ("src", "href", "srcset", "action", "poster", "data"):
            assert value.startswith("data:"), (tag, name)
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttpRequest|import\(", source)
    assert "default-src 'none'" in source


def test_the_figure_is_inside_the_page_with_words_for_who_cannot_see_it(written, tmp_path):
    (tmp_path / "figure.png").write_bytes(PNG)
    result = effects()
    source = written(result, figure=tmp_path / "figure.png")
    images = {name: value for tag, name, value in Page(source).attributes if tag == "img"}
    kind, data = images["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == PNG
    assert images["alt"] == result.sentence()


def test_an_svg_is_taken_and_another_file_is_refused(written):
    assert "data:image/svg+xml" in written(figure=b"<?xml version='1.0'?><svg/>")
    with pytest.raises(ValueError, match="neither png nor svg"):
        written(figure=b"%PDF-1.4")


def test_the_same_run_gives_the_same_page(written):
    assert written() == written()


BROWSER = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (found := shutil.which(name))
    ),
    None,
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --virtual-time-budget=5000"
).split()


def browsed(source, script, *, width, folder):
    """What `script` gives, run in the page at a window of `width` dots.

    The page is put into a frame: a headless window cannot be as narrow as a phone.
    """
    tell = f"parent.document.body.dataset.found = JSON.stringify((() => {{ {script} }})());"
    inner = html.escape(source.replace("</body>", f"<script>{tell}</script></body>"))
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{inner}"></iframe>'
    (folder / "frame.html").write_text(f"<!doctype html><meta charset=utf-8><body>{frame}")
    options = [f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", "--dump-dom"]
    place = (folder / "frame.html").as_uri()
    seen = subprocess.run(
        [BROWSER, *QUIET, *options, place], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r'data-found="([^"]*)"', seen.stdout)
    assert found, seen.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_desk(written, tmp_path, width):
    source = written(figure=DOT, record=RECORD | {"code": "f" * 200}, config={"model": "m" * 200})
    script = "const e = document.documentElement; return [innerWidth, e.scrollWidth];"
    inner, needed = browsed(source, script, width=width, folder=tmp_path)
    assert inner == width
    assert needed <= inner


@needs_browser
def test_a_click_on_a_heading_sorts_and_a_second_turns_it_round(written, tmp_path):
    effect = torch.tensor([[0.5, -10.0, torch.nan, 9.0, -2.0]])
    result = effects(layers=1, heads=5, effect=effect, low=effect, high=effect)
    script = """
      const button = document.querySelectorAll("#table th button")[2], found = [];
      for (let click = 0; click < 2; click++) {
        button.click();
        found.push([button.parentElement.getAttribute("aria-sort"),
          ...[...document.querySelectorAll("#table tbody tr")].map(r => r.cells[1].textContent)]);
      }
      return found;"""
    up, down = browsed(written(result, figure=DOT), script, width=1280, folder=tmp_path)
    assert up == ["ascending", "1", "4", "0", "3", "2"]
    assert down == ["descending", "3", "0", "4", "1", "2"]


@needs_browser
def test_only_25_rows_are_seen_until_all_are_asked_for_from_the_keyboard(written, tmp_path):
    script = """
      const toggle = document.getElementById("toggle"), found = [];
      const seen = () => [...document.querySelectorAll("#table tbody tr")]
        .filter((row) => row.offsetHeight > 0).length;
      found.push(seen()); toggle.focus();
      found.push(document.activeElement === toggle); toggle.click();
      found.push(seen(), toggle.getAttribute("aria-expanded")); toggle.click();
      found.push(seen());
      return found;"""
    found = browsed(written(figure=DOT), script, width=390, folder=tmp_path)
    assert found == [25, True, 63, "true", 25]
