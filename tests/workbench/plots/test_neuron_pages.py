import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch

from workbench import corpora, neurons, plots

EVIL = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def atlas(tiny):
    return neurons.atlas(tiny, corpora.passages(tiny, length=20, most_tokens=240), n=4, exact=0)


@pytest.fixture
def attacked(atlas):
    """An atlas of a corpus that tries to become part of the page."""
    count = len(atlas.neurons)
    evil = [[f"+1.0  {EVIL} «{EVIL}» {EVIL}"]] * count
    return dataclasses.replace(
        atlas, contexts=evil, tokens=[[EVIL]] * count, promoted=[[EVIL, '" onclick="x']] * count,
        suppressed=[[EVIL]] * count, explanation=[EVIL] * count, task=EVIL,
    )  # fmt: skip


def in_browser(page, path, script=""):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser is installed, so the page's script cannot be run")
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={path.parent / 'profile'}", f"file://{path}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_a_page_has_an_index_and_a_section_for_each_chosen_neuron(atlas, tmp_path):
    page = plots.atlas_page(atlas)
    assert page.count("<section ") == page.count("<tr data-page=") == 4
    for one in atlas.neurons:
        assert f"<h3>Neuron {one}</h3>" in page
    assert page.count("<mark>") == sum(map(len, atlas.contexts))
    assert "http" not in page  # nothing is fetched from elsewhere
    plots.save_atlas(atlas, tmp_path / "atlas.html")
    assert (tmp_path / "atlas.html").read_text() == page
    assert plots.interactive(atlas) in page


def attributes(page):
    names = set()
    reader = HTMLParser()
    reader.handle_starttag = lambda _, given: names.update(name for name, _ in given)
    reader.feed(page)
    return names


def test_nothing_in_a_corpus_becomes_part_of_the_page(atlas, attacked):
    clean, page = plots.atlas_page(atlas), plots.atlas_page(attacked)
    assert "<img" not in page
    assert page.count("<script>") == clean.count("<script>") == 1
    assert not {name for name in attributes(page) if name.startswith("on")}
    assert "onclick" in attributes('<td data-key="a" onclick="b">')


def test_the_page_of_a_neuron_says_what_its_loss_costs_with_bounds(atlas):
    nan = float("nan")
    part = dataclasses.replace(
        atlas, loss=torch.tensor([-0.25, 0.125, nan, nan]),
        loss_low=torch.tensor([-0.5, 0.0625, nan, nan]),
        loss_high=torch.tensor([-0.125, 0.1875, nan, nan]), unit="nats per <b>token",
    )  # fmt: skip
    said = re.findall(r"<br>loss (.*?)</p>", plots.atlas_page(part))
    rest = "nats per &lt;b&gt;token when mean-ablated (95 % bounds; below 0: it helps)"
    assert said == [
        f"-0.2500 [-0.5000, -0.1250] {rest}", f"+0.1250 [+0.0625, +0.1875] {rest}", "–", "–",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_browser_finds_neurons_and_is_not_taken_over(attacked, atlas, tmp_path):
    assert (
        "taken"
        not in re.findall(
            r"<title>(.*?)</title>", in_browser(plots.atlas_page(attacked), tmp_path / "evil.html")
        )[0]
    )
    wanted = f"Neuron {atlas.neurons[2]}"
    script = f"""const box = document.querySelector(".atlas input"); box.value = "{wanted}";
    box.dispatchEvent(new Event("input"));"""
    document = in_browser(plots.atlas_page(atlas), tmp_path / "page.html", script)
    shown = [tag for tag in re.findall(r"<section [^>]*>", document) if "hidden" not in tag]
    assert len(shown) == 1
    assert shown[0].split('"')[1].endswith("-2")


@pytest.mark.slow
def test_a_browser_sorts_by_a_column(atlas, tmp_path):
    script = 'document.querySelectorAll(".atlas th")[3].click();'
    document = in_browser(plots.atlas_page(atlas), tmp_path / "page.html", script)
    order = [int(one) for one in re.findall(r'<tr data-page="[^"]*-(\d+)"', document)]
    kinds = [float(atlas.kinds[at]) for at in order]
    assert kinds == sorted(kinds, reverse=True)
