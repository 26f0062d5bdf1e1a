"""Explanations by rules and by chat models, and what is said of them."""

import json

import pytest
import torch

from hooks import Prompts
from workbench import corpora, models, neurons
from workbench.models.planted.detectors import DETECTED
from workbench.neurons import scoring

FILLER = "the and then later today here near there while after was still by some".split()
SAYS = f"It fires at the word {DETECTED}."


@pytest.fixture(scope="module")
def model():
    return models.load("planted/neurons")


@pytest.fixture(scope="module")
def detector(model):
    return models.planted.truth(model).neurons["detector"][0]


@pytest.fixture(scope="module")
def text(model):
    drawn = torch.Generator().manual_seed(0)
    documents = [
        " ".join(FILLER[int(at)] for at in torch.randint(len(FILLER), (60,), generator=drawn))
        for _ in range(8)
    ]
    return corpora.text(model, documents, length=40)


class Knowing:
    """Stands for a chat model that understands: it reads what it is asked."""

    name = "knowing"

    def __init__(self):
        self.asked = []

    def __call__(self, messages):
        self.asked.append(messages[-1]["content"])
        if "in common" in self.asked[-1]:
            return f"{SAYS}\nAnd more that is not wanted."
        tokens = json.loads(self.asked[-1].split("as JSON:\n")[1].split("\n\nAnswer")[0])
        wanted = {n: 10 for n, token in tokens.items() if token.strip() == DETECTED}
        return f"Here it is: {json.dumps(wanted)}"


def test_a_chat_model_that_knows_explains_and_simulates_perfectly(model, text, detector):
    knows = Knowing()
    found = neurons.explain(
        model, text, [detector], explainer=neurons.by_chat(knows),
        simulator=neurons.follow_chat(knows),
    )  # fmt: skip
    assert found.explanation == [SAYS]
    for score in (found.score, found.detection, found.fuzzing):
        assert float(score[0]) == pytest.approx(1.0)
    shown = knows.asked[0]
    assert f"« {DETECTED}»" in shown
    assert {part.split("»")[0].strip() for part in shown.split("«")[2:]} == {DETECTED}


def test_the_same_explanation_of_something_else_says_nothing(model, text, detector):
    def wrong(messages):
        return json.dumps({"3": 10})

    found = neurons.explain(
        model, text, [detector], explainer=lambda _: "noise", simulator=neurons.follow_chat(wrong)
    )
    assert abs(float(found.score[0])) < 0.25
    assert float(found.fuzzing[0]) == pytest.approx(0.5, abs=0.25)
    assert found.simulator == "wrong"


@pytest.mark.parametrize(
    "said", ["I do not know.", '{"99": 3}', '{"1": 11}', '{"1": "high"}', "[1, 2]", '{"a": 1}']
)
def test_a_reply_that_cannot_be_read_is_an_error_that_quotes_it(said):
    with pytest.raises(ValueError, match="was asked for an object"):
        neurons.follow_chat(lambda _: said)("it", ["a", "b", "c"])


def test_an_endpoint_is_called_by_its_model_and_address():
    endpoint = models.Endpoint("http://127.0.0.1:9/v1", "small")
    assert neurons.by_chat(endpoint).name == "small at http://127.0.0.1:9/v1"


@pytest.fixture
def talker(monkeypatch):
    model = models.load("tiny-gqa")
    monkeypatch.setattr(
        model.tokenizer, "chat_template", "{% for m in messages %}{{ m.content }} {% endfor %}"
    )
    return model


def test_a_loaded_model_rates_each_token_by_the_digits_it_expects(talker):
    """Token by token, each prompt cut off where its digit would stand."""
    simulate, tokens = neurons.follow_chat(talker), [" Mary", " went", " to"]
    digits = torch.tensor(talker.tokenizer.convert_tokens_to_ids(list("0123456789")))
    start = models.chat(
        talker, [{"role": "user", "content": neurons.asking._RATE.format(explanation="it")}]
    ).tokens[0].tolist()  # fmt: skip

    def ids(text):
        return talker.tokenizer(text, add_special_tokens=False)["input_ids"]

    before, expected = start, []
    for token in tokens:
        before = [*before, *ids(token), *ids("\t")]
        with torch.no_grad():
            logits = talker(Prompts.of(torch.tensor([before])))[0, -1]
        expected.append(float(logits[digits].softmax(0) @ torch.arange(10.0)) / 9)
        before = [*before, *ids("?\n")]
    assert simulate("it", tokens) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="make the corpus of shorter rows"):
        simulate("it", tokens * 40)


def test_a_loaded_model_is_asked_and_named(talker):
    text = corpora.passages(talker, length=10, most_tokens=60)
    found = neurons.explain(
        talker, text, [(0, 1), (1, 2)], explainer=neurons.by_chat(talker),
        simulator=neurons.follow_chat(talker),
    )  # fmt: skip
    assert found.explainer == found.simulator == "tiny-gqa"
    assert (found.score.abs() <= 1).all()
    assert "tiny-gqa" in found.sentence()
    assert found.headline()["fuzzing"] == pytest.approx(float(found.fuzzing.nanmedian()))


def test_rules_leave_out_what_predicts_nothing():
    rows = [(["x", "cat", "dog", "cat", "owl"], [0.0, 8.0, 0.02, 8.0, -0.02])] * 3
    said = neurons.by_rules(rows)
    assert said == 'fires at {"cat": 1.0}'
    assert neurons.follow_rules(said, ["x", "dog", "cat"]) == [0.0, 0.0, 1.0]


def test_what_was_not_asked_is_a_dash_in_the_table(tiny_gqa):
    book = neurons.atlas(tiny_gqa, corpora.passages(tiny_gqa, length=16).at_most(160), n=3, exact=1)
    lines = book.table(3).splitlines()
    assert "–" not in lines[1]
    assert all("–" in line for line in lines[2:])


def test_a_piece_is_told_from_others_by_its_strongest_token():
    truth = torch.tensor([0.0, 1.0, 0, 0, 0, 0])
    piece = torch.tensor([0, 0, 1, 1, 2, 2])
    for guess, expected in (
        ([0, 5, 1, 1, 1, 1], 1.0), ([0, 0, 1, 1, 1, 1], 0.0), ([2, 2, 2, 2, 2, 2], 0.5),
        ([3, 0, 1, 1, 4, 4], 0.5),
    ):  # fmt: skip
        assert scoring.detection(torch.tensor(guess).double(), truth, piece, 3) == expected
    silent = scoring.detection(truth, torch.zeros(6), piece, 3)
    assert silent != silent  # NaN: it fires nowhere


def test_marks_are_told_from_wrong_ones_in_the_same_piece():
    truth = torch.tensor([0.0, 1, 0, 0, 0, 0, 1, 1])
    piece = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])

    def score(guess):
        drawn = torch.Generator().manual_seed(0)
        return scoring.fuzzing(torch.tensor(guess).double(), truth, piece, generator=drawn)

    assert score([0, 5, 0, 9, 9, 9, 9, 9]) == 1.0  # only the first piece has both
    assert score([5, 0, 5, 0, 0, 0, 0, 0]) == 0.0
    assert score([1, 1, 1, 0, 0, 0, 0, 0]) == 0.5
    nowhere = scoring.fuzzing(truth, torch.zeros(8), piece, generator=torch.Generator())
    assert nowhere != nowhere


def test_pieces_do_not_reach_from_one_row_into_the_next():
    row = torch.tensor([0] * 20 + [1] * 3)
    position = torch.tensor([*range(1, 21), 1, 2, 3])
    piece, count = scoring.pieces(row, position)
    assert count == 3
    assert piece.tolist() == [0] * 16 + [1] * 4 + [2] * 3
