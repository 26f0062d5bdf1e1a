"""What a reader can do with the page in a browser."""

import html
import json
import re
import shutil
import subprocess

import pytest
import torch

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
def test_the_page_fits_a_phone_and_a_desk(written, tmp_path, width, DOT, RECORD):
    source = written(figure=DOT, record=RECORD | {"code": "f" * 200}, config={"model": "m" * 200})
    script = "const e = document.documentElement; return [innerWidth, e.scrollWidth];"
    inner, needed = browsed(source, script, width=width, folder=tmp_path)
    assert inner == width
    assert needed <= inner


@needs_browser
def test_a_click_on_a_heading_sorts_and_a_second_turns_it_round(written, tmp_path, DOT, effects):
    effect = torch.tensor([[0.5, -10.0, torch.nan, 9.0, -2.0]])
    result = effects(layers=1, heads=5, effect=effect, low=effect, high=effect)
    script = """
      const button = document.querySelectorAll("#table-1 th button")[2], found = [];
      for (let click = 0; click < 2; click++) {
        button.click();
        found.push([button.parentElement.getAttribute("aria-sort"),
          ...[...document.querySelectorAll("#table-1 tbody tr")].map(r => r.cells[1].textContent)]);
      }
      return found;"""
    up, down = browsed(written(result, figure=DOT), script, width=1280, folder=tmp_path)
    assert up == ["ascending", "1", "4", "0", "3", "2"]
    assert down == ["descending", "3", "0", "4", "1", "2"]


@needs_browser
def test_only_25_rows_are_seen_until_all_are_asked_for_from_the_keyboard(written, tmp_path, DOT):
    script = """
      const toggle = document.querySelector(".toggle"), found = [];
      const seen = () => [...document.querySelectorAll("#table-1 tbody tr")]
        .filter((row) => row.offsetHeight > 0).length;
      found.push(seen()); toggle.focus();
      found.push(document.activeElement === toggle); toggle.click();
      found.push(seen(), toggle.getAttribute("aria-expanded")); toggle.click();
      found.push(seen());
      return found;"""
    found = browsed(written(figure=DOT), script, width=390, folder=tmp_path)
    assert found == [25, True, 63, "true", 25]
