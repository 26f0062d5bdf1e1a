"""Files in public formats, made by hand and as they are published."""

import json

import pytest

from workbench import models, tasks


def lines(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def said(model, ids) -> list[str]:
    return models.words(model, ids[ids >= 0])


EAP = (
    "clean,corrupted,label\n"
    "The war lasted from the year 1342 to the year 13,"
    "The war lasted from the year 1301 to the year 13,42\n"
)


def test_a_label_of_two_digits_becomes_the_greater_and_the_smaller_tens(tiny, tmp_path):
    (tmp_path / "years.csv").write_text(EAP)
    task = tasks.read_eap_ig(tiny, tmp_path / "years.csv")
    assert task.name == "years"
    assert said(tiny, task.answer) == list("56789")
    assert said(tiny, task.foil) == list("0123")
    assert "".join(models.words(tiny, task.corrupt)[0]).endswith("1301 to the year 13")


def test_the_mark_that_spreadsheets_put_first_belongs_to_no_column(tiny, tmp_path):
    (tmp_path / "years.csv").write_text(EAP, encoding="utf-8-sig")
    assert len(tasks.read_eap_ig(tiny, tmp_path / "years.csv")) == 1


def test_token_ids_keep_the_space_that_sentence_piece_hides(shared_data, tmp_path):
    model = models.load(shared_data / "models" / "stories260K")
    time, the = model.tokenizer.convert_tokens_to_ids(["▁time", "▁the"])
    (tmp_path / "ids.csv").write_text(
        f"clean,corrupted,correct_idx,incorrect_idx\nOnce upon a,Once upon the,{time},{the}\n"
    )
    task = tasks.read_eap_ig(model, tmp_path / "ids.csv")
    assert (task.answer.tolist(), task.foil.tolist()) == ([[time]], [[the]])


def test_token_ids_become_answers_and_another_column_the_corrupt_prompts(tiny, tmp_path):
    paris, rome = (tiny.tokenizer.convert_tokens_to_ids(one) for one in (" Paris", " Rome"))
    (tmp_path / "ids.csv").write_text(
        "clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n"
        f"The capital of France is,The capital of Cuba is,The capital of Italy is,{paris},{rome}\n"
    )
    task = tasks.read_eap_ig(tiny, tmp_path / "ids.csv", corrupted="corrupted_hard")
    assert said(tiny, task.answer) == [" Paris"]
    assert said(tiny, task.foil) == [" Rome"]
    assert " Italy" in models.words(tiny, task.corrupt)[0]


def test_a_token_id_of_another_tokenizer_is_refused(tiny, tmp_path):
    (tmp_path / "ids.csv").write_text("clean,corrupted,correct_idx,incorrect_idx\nA,a,70000,5\n")
    with pytest.raises(ValueError, match=r"ids.csv, row 0: correct_idx is '70000', .* below"):
        tasks.read_eap_ig(tiny, tmp_path / "ids.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("clean,label\nA,42\n", "row 0: field 'corrupted' is missing; there are clean, label"),
        ("clean,corrupted\nA,a\n", "row 0: field 'correct_idx' is missing"),
        ("clean,corrupted,label\nA,a,xy\n", "row 0: label is 'xy', expected the last two digits"),
        ("clean,corrupted,label\n", "there are no rows; expected fields clean, corrupted"),
    ],
)
def test_a_bad_csv_file_is_named_with_row_and_field(tiny, tmp_path, content, message):
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(ValueError, match=f"bad.csv.*{message}"):
        tasks.read_eap_ig(tiny, tmp_path / "bad.csv")


AGREE = {
    "clean_prefix": "The boys near the car",
    "patch_prefix": "The boy near the car",
    "clean_answer": " are",
    "patch_answer": " is",
    "case": "plural_singular",
}


def test_feature_circuits_lines_become_a_task(tiny, tmp_path):
    task = tasks.read_feature_circuits(tiny, lines(tmp_path / "sva.json", [AGREE, AGREE]))
    assert len(task) == 2
    assert "".join(models.words(tiny, task.clean)[0]) == AGREE["clean_prefix"]
    assert "".join(models.words(tiny, task.corrupt)[0]) == AGREE["patch_prefix"]
    assert (said(tiny, task.answer), said(tiny, task.foil)) == ([" are"] * 2, [" is"] * 2)
    assert task.templates == ("plural_singular",)


def test_a_bad_json_line_is_named(tiny, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(AGREE) + "\n{nonsense\n")
    with pytest.raises(ValueError, match=r"bad\.json: row 1 is not json"):
        tasks.read_feature_circuits(tiny, path)
    lines(path, [AGREE, {**AGREE, "patch_answer": 3}])
    with pytest.raises(ValueError, match="row 1: field 'patch_answer' is 3, expected text"):
        tasks.read_feature_circuits(tiny, path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="row 0: expected an object, found 1"):
        tasks.read_feature_circuits(tiny, path)


def fact(subject, attribute, prompt="The capital of {} is") -> dict[str, str]:
    return {
        "subject": subject,
        "attribute": attribute,
        "prompt": prompt.format(subject),
        "relation_id": "P36",
    }


FACTS = [
    fact("France", "Paris"),
    fact("the city of Paris", "Paris"),  # no other subject has four tokens
    fact("Italy", "Rome"),
    fact("Cuba", "Havana", "The city of {} was"),  # nothing else asks this
    fact("Norway", "Paris"),
]


def test_facts_are_corrupted_with_the_next_that_asks_the_same(tiny, tmp_path):
    path = tmp_path / "known.json"
    path.write_text(json.dumps(FACTS))
    task = tasks.read_counterfact(tiny, path, unfit="drop")
    assert task.dropped == 2
    corrupt = ["".join(one) for one in models.words(tiny, task.corrupt)]
    assert corrupt == [FACTS[2]["prompt"], FACTS[4]["prompt"], FACTS[2]["prompt"]]
    assert said(tiny, task.answer) == [" Paris", " Rome", " Paris"]
    assert said(tiny, task.foil) == [" Rome", " Paris", " Rome"]
    assert task.positions["subject"].tolist() == [3, 3, 3]


def test_a_fact_without_a_partner_is_refused(tiny, tmp_path):
    path = tmp_path / "known.json"
    path.write_text(json.dumps(FACTS))
    with pytest.raises(ValueError, match="known, row 1: no other fact has the form of 'The cap"):
        tasks.read_counterfact(tiny, path)


def test_a_fact_whose_prompt_lacks_its_subject_is_named(tiny, tmp_path):
    path = lines(tmp_path / "known.json", [{**FACTS[0], "subject": "Spain"}])
    with pytest.raises(ValueError, match="row 0: the subject 'Spain' is not in the prompt"):
        tasks.read_counterfact(tiny, path)


PAIRS = [
    {"input": "boy", "output": "boys"},
    {"input": "cat", "output": "cats"},
    {"input": "man", "output": "men"},
    {"input": "dog", "output": "dogs cats"},
]


@pytest.mark.parametrize("demonstrations", [0, 2])
def test_word_pairs_are_shown_and_one_is_asked_for(default_model, tmp_path, demonstrations):
    path = tmp_path / "plural.json"
    path.write_text(json.dumps(PAIRS))
    task = tasks.read_function_vectors(
        default_model, path, prompts=6, seed=0, demonstrations=demonstrations
    )
    plural = {pair["input"]: pair["output"] for pair in PAIRS}
    assert task.dropped == 1
    for row in range(6):
        clean, corrupt = (
            "".join(models.words(default_model, prompts)[row])
            for prompts in (task.clean, task.corrupt)
        )
        *shown, asked = clean.split("\n\n")
        assert len(shown) == demonstrations
        for one in shown:
            given, output = one.removeprefix("Q: ").split("\nA: ")
            assert plural[given] == output
        assert corrupt.split("\n\n")[:-1] == shown
        query, other = (one.split("Q: ")[-1].removesuffix("\nA:") for one in (asked, corrupt))
        assert not any(f"Q: {one}\n" in "\n\n".join(shown) for one in (query, other))
        assert models.words(default_model, task.answer[row]) == [f" {plural[query]}"]
        assert models.words(default_model, task.foil[row]) == [f" {plural[other]}"]
        place = int(task.positions["query"][row])
        assert models.words(default_model, task.clean)[row][place] == f" {query}"


def test_more_demonstrations_than_pairs_are_refused(default_model, tmp_path):
    path = tmp_path / "plural.json"
    path.write_text(json.dumps(PAIRS))
    with pytest.raises(ValueError, match="3 demonstrations were asked for; there are 4 pairs"):
        tasks.read_function_vectors(default_model, path, prompts=2, seed=0, demonstrations=3)


BLIMP = [
    {"sentence_good": "The boys are happy", "sentence_bad": "The boys is happy", "UID": "verb"},
    {"sentence_good": "He has a cat", "sentence_bad": "He a cat", "UID": "missing"},
    {"sentence_good": "The boy is happy", "sentence_bad": "The boy are happy", "UID": "verb"},
]


def test_sentence_pairs_are_good_and_bad_prompts(tiny, tmp_path):
    found = tasks.pairs(tiny, lines(tmp_path / "blimp.jsonl", BLIMP))
    assert found.name == "blimp"
    for prompts, field in ((found.good, "sentence_good"), (found.bad, "sentence_bad")):
        assert ["".join(row) for row in models.words(tiny, prompts)] == [r[field] for r in BLIMP]
    assert found.phenomena == ("verb", "missing")
    assert found.group.tolist() == [0, 1, 0]
    assert len(found[:2]) == 2


def test_sentence_pairs_may_come_as_rows_with_other_names(tiny):
    rows = [{"right": "He is", "wrong": "He are"}]
    found = tasks.pairs(tiny, rows, fields=("right", "wrong"))
    assert (found.name, found.phenomena, len(found)) == ("pairs", ("",), 1)


def test_sentence_pairs_without_a_difference_are_refused(tiny):
    rows = [BLIMP[0], {"sentence_good": "He is", "sentence_bad": "He is"}]
    with pytest.raises(ValueError, match="rows, row 1: sentence_good and sentence_bad are the s"):
        tasks.pairs(tiny, rows)


# The published files, read for the default model.


def test_the_published_greater_than_file(default_model, shared_data):
    task = tasks.read_eap_ig(default_model, shared_data / "greater_than_data.csv", unfit="drop")
    assert len(task) + task.dropped == 1000
    assert "".join(models.words(default_model, task.clean[:1])[0]).startswith("The contract lasted")
    assert said(default_model, task.answer[0]) == list("6789")  # the year is 1352


@pytest.mark.parametrize(("file", "rows"), [("simple_test", 120), ("nounpp_test", 480)])
def test_the_published_agreement_files(default_model, shared_data, file, rows):
    path = shared_data / "feature_circuits_sva" / f"{file}.json"
    with pytest.raises(ValueError, match=r"row 0: clean has \d tokens .*' un', 'cles'"):
        tasks.read_feature_circuits(default_model, path)
    task = tasks.read_feature_circuits(default_model, path, unfit="drop")
    assert len(task) + task.dropped == rows
    assert len(task) > rows / 2


def test_the_published_facts(default_model, shared_data):
    task = tasks.read_counterfact(default_model, shared_data / "known_1000.json", unfit="drop")
    assert len(task) + task.dropped == 1209
    assert len(task) > 500
    first = "".join(models.words(default_model, task.clean[:1])[0])
    assert first == "Beats Music is owned by"
    assert models.words(default_model, task.clean[:1])[0][task.positions["subject"][0]] == " Music"


def test_the_published_word_pairs(default_model, shared_data):
    path = shared_data / "function_vectors" / "present-past.json"
    task = tasks.read_function_vectors(default_model, path, prompts=8, seed=0, demonstrations=2)
    found = tasks.solved(default_model, task)
    assert found.is_solved


def test_the_published_sentence_pairs(default_model, shared_data):
    found = tasks.pairs(default_model, shared_data / "blimp" / "blimp_67x20.jsonl")
    assert len(found) == 67 * 20
    assert len(found.phenomena) == 67
