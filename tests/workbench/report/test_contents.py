"""What stands on the page of a run."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.results import Result


@dataclass(frozen=True, eq=False)
class Words(Result):
    """How often each word was seen. Higher: more often."""

    count: Float[Tensor, " word"]
    word: list[str] = field(metadata={"axis": "word"})
    text: list[str] = field(metadata={"axis": "word"})


def test_every_part_of_the_docstring_is_on_the_page(written, words_of):
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


def test_a_docstring_without_parts_still_makes_a_page(written, words_of):
    assert "Only a title" in words_of(written(docstring="Only a title"))
    assert "heads" in words_of(written(docstring=""))


def test_the_page_says_what_was_found_and_what_the_sign_means(written, effects, words_of):
    result = effects()
    text = words_of(written(result))
    assert result.sentence() in text
    assert "Negative: the head was helping." in text
    assert "p is corrected for testing every head at once" in text


def test_the_caveat_of_a_result_stands_alone_and_once(written, effects, words_of):
    text = words_of(written(effects(caveat="Caveat: it is all noise.")))
    assert text.count("it is all noise.") == 1
    assert 'id="result-caveat"' in written(effects(caveat="Caveat: it is all noise."))
    assert 'id="result-caveat"' not in written(effects())


def test_the_page_says_how_it_was_made_and_how_to_make_it_again(written, words_of):
    text = words_of(written())
    options = "--model tiny --prompts 16 --batch-size 4 --words a 'b c' --seed 0"
    assert f"workbench run heads {options}" in text
    for part in ("abc123", "made here", "beef", "torch 2.13", "1.5", "2.50 GB"):
        assert part in text
    assert "UserWarning: careful (a.py:3), 2 times" in text


def test_the_table_holds_every_head_once_strongest_first(written, effects, Page):
    result = effects()
    rows = [row for row in Page(written(result)).rows if row]
    seen = [(int(row[0]), int(row[1])) for row in rows]
    order = result.effect.abs().flatten().argsort(descending=True).tolist()
    assert seen == [divmod(at, 9) for at in order]


def test_a_row_shows_value_bounds_and_p_and_is_marked_where_significant(written, effects, Page):
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


def test_missing_and_endless_numbers_are_shown_and_kept_apart_when_sorting(written, effects, Page):
    values = torch.tensor([[torch.nan, torch.inf, 1.0]])
    source = written(effects(layers=1, heads=3, effect=values, low=values, high=values))
    keys = [value for tag, name, value in Page(source).attributes if name == "data-key"]
    assert {"", "inf", "1.0"} <= set(keys)
    assert "+∞" in source


def test_columns_of_words_are_shown_as_words(written):
    source = written(Words(torch.tensor([1.0, 2.0]), ["<b>", "c"], ["x & y", "z"]))
    assert "x &amp; y" in source
    assert "<b>" not in source


def test_a_page_of_many_rows_keeps_the_strongest_and_says_so(written, effects, Page, words_of):
    source = written(effects(layers=50, heads=50))
    assert len([row for row in Page(source).rows if row]) == 2000
    assert "The first 2000 of 2500 rows" in words_of(source)


def test_the_same_run_gives_the_same_page(written):
    assert written() == written()


@dataclass(frozen=True, eq=False)
class Whole(Result):
    """What two parts say together.

    seen_first   counts of the first
                 text
    later        the others
    """

    seen_first: Words
    later: Words

    def sentence(self) -> str:
        """Two lines."""
        return "Both were counted.\nOne was long."

    def table(self) -> str:
        """The gist of both as text."""
        return "go <b>first</b>: 7"


def test_a_result_of_several_parts_shows_its_gist_and_a_table_of_each_part(written, words_of):
    first = Words(torch.tensor([7.0, 1.0]), word=["a", "b"], text=["x", "y"])
    many = Words(torch.arange(400.0), word=[f"w{n}" for n in range(400)], text=["z"] * 400)
    page = written(Whole(first, many))
    text = words_of(page)
    assert "In short" in text and "go <b>first</b>: 7" in text and "<b>first" not in page
    assert text.index("Seen first") < text.index("7.0") < text.index("Later")
    assert text.count("How often each word was seen.") == 2
    assert page.count("<table") == 2 and "The first 300 of 400 rows" in text
    assert "<p>Both were counted.</p>\n<p>One was long.</p>" in page
    assert "<dt>seen first</dt><dd>counts of the first text</dd>" in page


def test_a_result_without_parts_has_one_table_and_no_gist(written):
    page = written()
    assert page.count("<table") == 1 and "In short" not in page
