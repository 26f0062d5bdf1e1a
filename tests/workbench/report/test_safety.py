"""Nothing in the data becomes part of the page, and the page asks nothing of others."""

import base64
import re

import pytest

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


def test_nothing_in_the_data_can_become_part_of_the_page(
    written, DOCSTRING, CONFIG, RECORD, effects, Page
):
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


def test_the_page_asks_nothing_of_any_other_machine(written, Page):
    source = written()
    for tag, name, value in Page(source).attributes:
        if name in ("src", "href", "srcset", "action", "poster", "data"):
            assert value.startswith("data:"), (tag, name)
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttpRequest|import\(", source)
    assert "default-src 'none'" in source


def test_the_figure_is_inside_the_page_with_words_for_who_cannot_see_it(
    written, tmp_path, PNG, effects, Page
):
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
