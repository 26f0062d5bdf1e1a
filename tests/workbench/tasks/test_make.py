"""One's own prompts."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from workbench import models, tasks

CLEAN = ["The capital of France is", "The capital city of Italy is called"]
CORRUPT = ["The capital of Spain is", "The capital city of Cuba is called"]
ANSWER, FOIL = [" Paris", " Rome"], [" Madrid", " Havana"]


def test_own_strings_become_a_task(small):
    task = tasks.make(small, CLEAN, CORRUPT, ANSWER, FOIL, name="mine")
    assert task.name == "mine"
    assert [f"{''.join(row)}" for row in models.words(small, task.clean)] == CLEAN
    assert [f"{''.join(row)}" for row in models.words(small, task.corrupt)] == CORRUPT
    assert models.words(small, task.answer) == [[one] for one in ANSWER]
    assert models.words(small, task.foil) == [[one] for one in FOIL]
    assert task.positions["END"].tolist() == [4, 6]


def test_roles_are_words_or_indices(tiny):
    positions = {"country": ["France", "Italy"], "verb": [4, 5]}
    task = tasks.make(tiny, CLEAN, CORRUPT, ANSWER, FOIL, name="mine", positions=positions)
    assert task.positions["country"].tolist() == [3, 4]
    assert task.positions["verb"].tolist() == [4, 5]


def test_a_role_of_several_tokens_is_at_the_last_of_them(tiny):
    positions = {"what": ["capital of", "capital city"]}
    task = tasks.make(tiny, CLEAN, CORRUPT, ANSWER, FOIL, name="mine", positions=positions)
    assert task.positions["what"].tolist() == [2, 2]


def test_a_role_is_found_within_a_word_of_several_tokens(default_model):
    task = tasks.make(
        default_model, ["The uncles saw"], ["The old men saw"], [" him"], [" her"],
        name="mine", positions={"subject": ["uncles"]},
    )  # fmt: skip
    assert models.words(default_model, task.clean)[0][1:3] == [" un", "cles"]
    assert task.positions["subject"].tolist() == [2]


def test_several_answers_are_a_set(tiny):
    answer = [[" Paris", " Rome"], [" Oslo"]]
    task = tasks.make(tiny, CLEAN, CORRUPT, answer, FOIL, name="mine")
    assert models.words(tiny, task.answer[0]) == [" Paris", " Rome"]
    assert task.answer[1, 1] == -1


def test_an_answer_given_twice_counts_once(tiny):
    answer = [[" Paris", " Paris"], [" Rome"]]
    task = tasks.make(tiny, CLEAN, CORRUPT, answer, FOIL, name="mine")
    assert task.answer.equal(tasks.make(tiny, CLEAN, CORRUPT, ANSWER, FOIL, name="mine").answer)


def test_groups_are_named(tiny):
    task = tasks.make(tiny, CLEAN, CORRUPT, ANSWER, FOIL, name="mine", group=["b", "a"])
    assert task.templates == ("b", "a")
    assert task.group.tolist() == [0, 1]


REFUSED = {
    "unequal lengths": (
        {"corrupt": [CORRUPT[0], "Cuba"]},
        r"mine, row 1: clean has 7 tokens \['The', ' capital', .*\], corrupt has 1 \['Cuba'\]",
    ),
    "equal prompts": ({"corrupt": CLEAN}, "row 0: clean and corrupt are the same tokens"),
    "answer of several tokens": (
        {"answer": [" Paris Rome", " Rome"]},
        r"row 0: answer ' Paris Rome' after .* is \[' Paris', ' Rome'\], not one token",
    ),
    "unknown foil": (
        {"foil": [" Madrid", " Atlantis"]},
        r"row 1: foil ' Atlantis' after .* is \['<unk>'\]",
    ),
    "answer is foil": ({"foil": [" Madrid", " Rome"]}, "row 1: .* share a token"),
    "no answer": ({"answer": [[], [" Rome"]]}, "row 0: there is no answer"),
    "too few": ({"foil": [" Madrid"]}, "mine: foil has 1 entries for 2 clean prompts"),
    "one string": ({"clean": "The"}, "mine: clean is one string; give a list"),
    "empty text": ({"clean": ["", CLEAN[1]]}, "mine, row 0: clean is '', expected some text"),
    "word not there": (
        {"positions": {"x": ["Italy", "Italy"]}},
        "row 0: the word 'Italy' of role 'x' stands 0 times",
    ),
    "word within a word": (
        {"positions": {"x": ["France", "call"]}},
        "row 1: the word 'call' of role 'x' stands 0 times",
    ),
    "word there twice": (
        {"clean": ["The city of the city", CLEAN[1]], "positions": {"x": ["city", "city"]}},
        "row 0: the word 'city' of role 'x' stands 2 times",
    ),
    "index outside": ({"positions": {"x": [4, 7]}}, "row 1: role 'x' is at token 7, but clean"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_task_is_refused_with_its_row_and_its_pieces(tiny, case):
    changed, message = REFUSED[case]
    columns = {"clean": CLEAN, "corrupt": CORRUPT, "answer": ANSWER, "foil": FOIL, **changed}
    with pytest.raises(ValueError, match=message):
        tasks.make(tiny, **columns, name="mine")


def test_an_answer_without_its_space_is_explained(default_model):
    with pytest.raises(ValueError, match=r"not one token of its own.* \(a word after a space is"):
        tasks.make(default_model, ["It is"], ["He is"], ["xyzzy"], [" her"], name="mine")


def test_rows_that_do_not_fit_are_dropped_on_request_and_counted(tiny):
    answer = [" Paris Rome", " Rome"]
    task = tasks.make(tiny, CLEAN, CORRUPT, answer, FOIL, name="mine", unfit="drop")
    assert len(task) == 1
    assert task.dropped == 1
    assert "".join(models.words(tiny, task.clean)[0]) == CLEAN[1]


def test_a_task_of_which_nothing_is_left_is_refused(tiny):
    with pytest.raises(ValueError, match="mine: none of the 2 rows fits this tokenizer"):
        tasks.make(tiny, CLEAN, CLEAN, ANSWER, FOIL, name="mine", unfit="drop")


def test_an_unknown_choice_for_unfit_rows_is_refused(tiny, unchecked_types):
    with pytest.raises(ValueError, match='unfit is "refuse" or "drop", not \'skip\''):
        tasks.make(tiny, CLEAN, CORRUPT, ANSWER, FOIL, name="mine", unfit="skip")


def frame() -> pd.DataFrame:
    columns = {"clean": CLEAN, "corrupt": CORRUPT, "answer": ANSWER, "foil": FOIL}
    return pd.DataFrame({**columns, "group": ["short", "long"], "country": ["France", "Italy"]})


def test_a_table_a_csv_file_and_lists_give_the_same_task(tiny, tmp_path):
    frame().to_csv(tmp_path / "mine.csv", index=False)
    table = tasks.from_frame(tiny, frame(), name="mine", roles=["country"])
    file = tasks.read_csv(tiny, tmp_path / "mine.csv", roles=["country"])
    positions = {"country": ["France", "Italy"]}
    lists = tasks.make(
        tiny, CLEAN, CORRUPT, ANSWER, FOIL,
        name="mine", positions=positions, group=["short", "long"],
    )  # fmt: skip
    assert table.digest == file.digest == lists.digest
    assert table.templates == file.templates == ("short", "long")


def test_a_csv_file_may_give_indices_and_words_that_look_like_nothing(tiny, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("clean,corrupt,answer,foil,at\nThe cat is,The dog is, red, blue,1\n")
    assert tasks.read_csv(tiny, path, roles=["at"]).positions["at"].tolist() == [1]


def test_a_missing_column_is_named(tiny):
    with pytest.raises(ValueError, match="column 'foil' is missing; there are clean, corrupt, ans"):
        tasks.from_frame(tiny, frame().drop(columns="foil"), name="mine")


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_gap_in_a_table_is_named_by_its_row(tiny, missing, unchecked_types):
    gaps = frame().assign(foil=[" Madrid", missing])
    with pytest.raises(ValueError, match=r"mine, row 1: (None|nan) is no word that could follow"):
        tasks.from_frame(tiny, gaps, name="mine")
    gaps = frame().assign(verb=[4, missing])
    with pytest.raises(ValueError, match="mine, row 1: role 'verb' is at nan, expected a word or"):
        tasks.from_frame(tiny, gaps, name="mine", roles=["verb"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": torch.tensor([[5, 5], [6, -1]])}, "a prompt has the same answer twice"),
        ({"positions": {"x": torch.tensor([-1, 0])}}, "role 'x' is not at one token of each"),
    ],
)
def test_a_task_made_by_hand_is_checked_too(tiny, changed, message):
    task = tasks.make(tiny, CLEAN, CORRUPT, ANSWER, FOIL, name="mine")
    with pytest.raises(ValueError, match=message):
        replace(task, **changed)


def test_every_prompt_has_a_group(tiny, unchecked_types):
    task = tasks.make(tiny, CLEAN, CORRUPT, ANSWER, FOIL, name="mine")
    with pytest.raises(ValueError, match="there are 3 groups for 2 prompts"):
        replace(task, group=torch.zeros(3, dtype=torch.long))


def test_part_of_a_task_keeps_what_belongs_to_it(tiny):
    task = tasks.make(tiny, CLEAN, CORRUPT, ANSWER, FOIL, name="mine", group=["b", "a"])
    part = task[1:]
    assert models.words(tiny, part.clean) == models.words(tiny, task.clean)[1:]
    assert part.templates[part.group[0]] == "a"
    assert task.swapped().clean is task.corrupt


def test_no_prompts_at_all_are_refused(tiny):
    with pytest.raises(ValueError, match="mine: no prompts were given: clean and the others"):
        tasks.make(tiny, [], [], answer=[], foil=[], name="mine")


def test_choosing_no_prompt_or_a_role_that_there_is_not_says_what_there_is(tiny):
    task = tasks.ioi(tiny, prompts=3, seed=0)
    for none in (slice(0, 0), [], torch.tensor([], dtype=torch.long)):
        with pytest.raises(ValueError, match=r"ioi: .* chooses none of the 3 prompts"):
            task[none]
    with pytest.raises(KeyError, match=r"no role 'subject' in this task; there are .*S2.*END"):
        task.positions["subject"]
    assert "subject" not in task.positions and task[:2].positions["END"].shape == (2,)
