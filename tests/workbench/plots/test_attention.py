import dataclasses
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from hooks import Activations, Prompts, Site, capture, sites
from workbench import heads, metrics, models, plots, tasks


@pytest.fixture(scope="module")
def model():
    return models.load("tiny")


@pytest.fixture(scope="module")
def prompts(model):
    return models.prompts(model, ["Mary and John went to the store", "Mary had a book"])


@pytest.fixture(scope="module")
def seen(model, prompts):
    return capture(model, prompts, sites.all(model, "pattern"))


@pytest.fixture(scope="module")
def view(model, prompts, seen):
    words = models.words(model, prompts)[0]
    return plots.attention(seen, words=words, title="two <heads> & one")


def data_of(fragment):
    found = re.search(r'data-view="([^"]*)"', fragment)
    return json.loads(html.unescape(found[1]))


def test_it_shows_the_pattern_without_padding(model, prompts, seen):
    words = models.words(model, prompts)[1]
    found = plots.attention(seen, 1, words=words, heads=[(1, 2), (0, 0)])
    expected = seen[Site("pattern", 1)][1, 2, :4, :4].numpy()
    np.testing.assert_array_equal(found.pattern[0], expected)
    assert found.heads == [(1, 2), (0, 0)] and found.words == words
    np.testing.assert_allclose(found.pattern.sum(2), 1, rtol=1e-5)


def test_all_captured_heads_are_shown_unless_some_are_named(view):
    assert view.heads == [(layer, head) for layer in (0, 1) for head in range(4)]


def test_the_figure_has_a_map_for_each_head_with_the_words_beside_it(view):
    figure = view.figure()
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) >= 8
    for at, axes in enumerate(maps[:8]):
        np.testing.assert_array_equal(axes.images[0].get_array(), view.pattern[at])
        assert axes.get_title(loc="left") == f"head {at // 4}.{at % 4}"
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels == "Mary and John went to the store".split()
    assert "two <heads> & one" in figure.get_suptitle()


def test_an_axes_of_the_caller_gets_the_first_head(view):
    mine = Figure()
    assert view.figure(mine.subplots()) is mine
    assert "head 0.0" in mine.axes[0].get_title(loc="left")


def test_of_many_heads_a_figure_says_that_it_shows_the_first(view):
    many = dataclasses.replace(view, pattern=view.pattern.repeat(2, 0), heads=view.heads * 2)
    assert many.figure().get_suptitle().endswith("the first 9 of 16 heads")


def test_the_page_holds_every_number_and_asks_nothing_of_any_other_machine(view):
    page = view.page()
    data = data_of(page)
    assert data["heads"] == [list(head) for head in view.heads]
    np.testing.assert_allclose(np.array(data["rows"]) / 1000, view.pattern, atol=5.1e-4)
    assert not re.search(r"https?:|src=|@import|url\(|fetch\(", page)
    assert "default-src 'none'" in page


def test_words_cannot_become_part_of_the_page(model, prompts, seen):
    bad = ["</script><script>alert(1)</script>", "<b>", "&amp;", '"', "'", "\n", " "]
    fragment = plots.attention(seen, words=bad, title="<img onerror=x>").fragment()
    assert data_of(fragment)["words"] == bad
    assert "<script>alert" not in fragment and "<b>" not in fragment and "<img" not in fragment
    assert fragment.count("</script>") == 1


def test_equal_views_are_equal_files_and_notebooks_show_the_same(view, tmp_path):
    view.save(tmp_path / "one.html")
    view.save(tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert view._repr_html_() in (tmp_path / "one.html").read_text()
    view.save(tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_without_scripts_there_is_a_table_of_what_each_word_looks_at_most(view):
    rows = re.findall(r"<td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", view.fragment())
    most = view.pattern[0].argmax(1)
    shown = "Mary and John went to the store".split()
    assert [row[:2] for row in rows] == [(w, shown[at]) for w, at in zip(shown, most, strict=True)]


def test_what_cannot_be_shown_is_refused(model, prompts, seen):
    words = models.words(model, prompts)[0]
    with pytest.raises(ValueError, match=r"head 1\.4 was not captured; there are 0\.0 to 1\.3"):
        plots.attention(seen, words=words, heads=[(1, 4)])
    with pytest.raises(ValueError, match="there is no prompt 2: they are 0 to 1"):
        plots.attention(seen, 2, words=words)
    with pytest.raises(ValueError, match="4 words for the 7 tokens of prompt 0"):
        plots.attention(seen, words=models.words(model, prompts)[1])
    with pytest.raises(ValueError, match="no head was given"):
        plots.attention(seen, words=words, heads=[])
    with pytest.raises(ValueError, match=r"head 0\.1 is given twice: give each head once"):
        plots.attention(seen, words=words, heads=[(0, 1), (1, 0), (0, 1)])
    other = capture(model, prompts, [Site("z", 0)])
    with pytest.raises(ValueError, match="no attention pattern was captured, only z 0"):
        plots.attention(other, words=words)
    some = capture(model, prompts, [Site("pattern", 0)], positions=0)
    with pytest.raises(ValueError, match="some positions only"):
        plots.attention(some, words=words)


def in_browser(page, path, script=""):
    """The page's document after its scripts, and `script`, have run in a browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser is installed, so the page's script cannot be run")
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={path.parent / 'profile'}", f"file://{path}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def by_hand():
    """One head of each of two layers over three words."""
    prompts = Prompts.of(torch.tensor([[0, 1, 2]]))
    low = torch.tensor([[1.0, 0, 0], [0.75, 0.25, 0], [0.5, 0.3, 0.2]])[None, None]
    high = torch.tensor([[1.0, 0, 0], [0.0, 1.0, 0], [0.1, 0.9, 0.0]])[None, None]
    seen = Activations(prompts, {Site("pattern", 0): low, Site("pattern", 3): high})
    return plots.attention(seen, words=["<s>", " one", " two"])


def said(document):
    return re.sub(r"<[^>]*>", "", re.search(r'class="said"[^>]*>(.*?)</p>', document)[1])


@pytest.mark.slow
def test_a_browser_shows_what_the_last_word_looks_at(by_hand, tmp_path):
    document = in_browser(by_hand.page(), tmp_path / "page.html")
    assert said(document) == "two (2) looks at: &lt;s&gt; (0) 50 %, one (1) 30 %, two (2) 20 %."
    assert document.count("<option") == 2 + 1 + 2
    assert 'class="still"' not in document.split("<script>")[0].split("</style>")[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("b[1].focus()", "one (1) looks at: &lt;s&gt; (0) 75 %, one (1) 25 %."),
        ("s[0].value = '3'; change(s[0])", "two (2) looks at: one (1) 90 %, &lt;s&gt; (0) 10 %."),
        ("f.checked = false; change(f)", "two (2) looks at: one (1) 30 %, two (2) 20 %."),
        ("b[1].click(); b[0].focus()", "one (1) looks at: &lt;s&gt; (0) 75 %, one (1) 25 %."),
        ("key('ArrowLeft')", "one (1) looks at: &lt;s&gt; (0) 75 %, one (1) 25 %."),
        ("key('Home')", "&lt;s&gt; (0) looks at: &lt;s&gt; (0) 100 %."),
        ("s[2].value = 'from'; change(s[2]); key('ArrowLeft')",
         "one (1) is looked at by: two (2) 30 %, one (1) 25 %."),
    ],
)  # fmt: skip
def test_a_browser_follows_pointer_and_keys(by_hand, tmp_path, script, expected):
    start = """const b = document.querySelectorAll(".words button"),
    s = document.querySelectorAll("select"), f = document.querySelector("input"),
    change = (one) => one.dispatchEvent(new Event("change")),
    key = (name) => document.querySelector(".words").dispatchEvent(
      new KeyboardEvent("keydown", { key: name }));"""
    document = in_browser(by_hand.page(), tmp_path / "page.html", start + script)
    assert said(document) == expected


def test_a_report_lets_the_reader_look(model, tmp_path):
    from workbench import report

    task = tasks.ioi(model, prompts=4, seed=0)
    found = heads.types(model, task, prompts=4)
    fragment = plots.interactive(found)
    assert data_of(fragment)["heads"] == [list(head) for head in found.shown]
    assert data_of(fragment)["words"] == models.words(model, task.clean)[0]
    report.write(
        tmp_path / "page.html", result=found, docstring="A title\n\nQuestion  What?\n", config={},
        record={"experiment": "x"}, figure=plots.png(found), interactive=fragment,
    )  # fmt: skip
    assert fragment in (tmp_path / "page.html").read_text()
    assert plots.interactive(object()) == ""


def test_types_are_drawn_as_one_map_of_colours_and_one_of_each(model, seen):
    found = heads.types(model, tasks.ioi(model, prompts=4, seed=0), prompts=4)
    at = found.types.index("induction")
    p, effect = torch.ones_like(found.p), found.effect.clone()
    p[at, 1, 2], effect[at, 1, 2] = 0.01, 0.9
    figure = plots.draw(dataclasses.replace(found, p=p, effect=effect))
    panels = {axes.get_title(loc="left").split("\n")[0]: axes for axes in figure.axes}
    for type in found.types:
        marked = [one for one in panels[type].collections if one.get_gid() == "marked"]
        assert len(marked[0].get_paths()) == (type == "induction")
    np.testing.assert_array_equal(panels["induction"].images[0].get_array(), effect[at].numpy())
    legend = [text.get_text() for axes in figure.axes if axes.get_legend()
              for text in axes.get_legend().get_texts()]  # fmt: skip
    assert "induction (1)" in legend and "name mover (0)" in legend
    strips = next(one for one in figure.axes[0].collections if one.get_gid() == "types")
    assert len(strips.get_paths()) == 1


def test_similarity_is_drawn_in_one_order_dark_where_alike():
    planted = models.load("planted/duplicate")
    found = heads.similarity(planted, tasks.planted(planted, prompts=8, seed=0))
    figure = plots.draw(found)
    maps = [axes for axes in figure.axes if axes.images][:6]
    order = found.order()
    np.testing.assert_array_equal(
        maps[0].images[0].get_array(), found.divergence[order][:, order].numpy()
    )
    names = [label.get_text() for label in maps[1].get_yticklabels()]
    assert names == [found.names[at] for at in order]
    for axes in maps:
        image = axes.images[0]
        low, high = image.cmap(image.norm(image.get_clim()))
        alike, unlike = (low, high) if axes is maps[0] else (high, low)
        assert sum(alike[:3]) < sum(unlike[:3])
    mine = Figure()
    assert plots.draw(found, mine.subplots()) is mine


def test_substitution_is_drawn_with_the_mean_beside_it():
    model = models.load("tiny-gqa")
    task = tasks.ioi(model, prompts=8, seed=0)
    found = heads.substitute(model, task, heads=[(0, 1), (1, 2)], metric=metrics.logit_diff)
    axes = plots.draw(found).axes[0]
    both = torch.cat([found.effect, found.by_mean[:, None]], dim=1)
    np.testing.assert_array_equal(axes.images[0].get_array(), both.numpy())
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "1.2", "mean"]
