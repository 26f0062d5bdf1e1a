"""Sentences by their own probability: pairs, and regions."""

import json

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts
from workbench import models, probes, results, tasks
from workbench.models import twins

ROWS = [
    {"sentence_good": "The dog is here", "sentence_bad": "The dogs is here", "UID": "a"},
    {"sentence_good": "The key was late", "sentence_bad": "The keys was late", "UID": "a"},
    {"sentence_good": "The men have it", "sentence_bad": "The men has it so", "UID": "b"},
    {"sentence_good": "We know", "sentence_bad": "know We", "UID": "b"},
]


def test_a_sentence_has_the_sum_of_its_tokens_log_probabilities(small):
    texts = ["The dog is here", "We know"]
    prompts = models.prompts(small, texts)
    found = probes.sentence_logprob(small, prompts, before="nothing")
    for row, text in enumerate(texts):
        tokens = models.prompts(small, text).tokens
        logprobs = small(tokens)[0].log_softmax(-1)
        by_hand = sum(float(logprobs[i, tokens[0, i + 1]]) for i in range(tokens.shape[1] - 1))
        assert_close(float(found[row]), by_hand, rtol=1e-5, atol=1e-5)
    assert found.shape == (2,)


def test_with_a_token_before_it_the_first_token_counts_too(tiny):
    prompts = models.prompts(tiny, ["The dog is here", "We know"])
    found = probes.surprisal(tiny, prompts)
    end = tiny.tokenizer.eos_token_id
    with_end = torch.cat([torch.full((2, 1), end), prompts.tokens], dim=1)
    first = tiny(with_end)[:, 0].log_softmax(-1).gather(1, prompts.tokens[:, :1])[:, 0]
    assert_close(found[:, 0], -first)
    assert (found[1, 2:] == 0).all()  # behind the end of the text


def test_sentences_do_not_depend_on_their_batch(tiny):
    prompts = models.prompts(tiny, [row["sentence_good"] for row in ROWS])
    one, all_at_once = (probes.surprisal(tiny, prompts, batch_size=size) for size in (1, 8))
    assert_close(one, all_at_once, rtol=1e-4, atol=1e-5)


def test_accuracy_is_the_share_of_pairs_whose_good_sentence_is_likelier(tiny, tmp_path):
    pairs = tasks.pairs(tiny, ROWS, name="own")
    found = probes.minimal_pairs(tiny, pairs)
    good, bad = (probes.sentence_logprob(tiny, one) for one in (pairs.good, pairs.bad))
    right = (good > bad).double()
    assert_close(found.accuracy.double(), torch.stack([right[:2].mean(), right[2:].mean()]))
    assert found.longer.tolist() == [0, 0, -1, 0]
    assert found.phenomena == ["a", "b"]
    results.save(found, tmp_path / "pairs.nc")
    again = results.load(probes.MinimalPairs, tmp_path / "pairs.nc")
    assert results.digest(again) == results.digest(found)


def test_a_model_that_knows_nothing_is_called_at_chance():
    """Both sentences have the same tokens but one, drawn at random, for a random model."""
    model = models.load("tiny")
    generator = torch.Generator().manual_seed(0)
    good = torch.randint(5, 200, (60, 5), generator=generator)
    bad = good.clone()
    bad[:, 3] = torch.randint(5, 200, (60,), generator=generator)
    pairs = tasks.SentencePairs(
        "noise", Prompts.of(good), Prompts.of(bad), torch.arange(60) % 3, ("a", "b", "c")
    )
    found = probes.minimal_pairs(model, pairs)
    assert found.above_chance() == found.below_chance() == []
    assert "0 are above chance" in found.sentence()


def test_an_encoder_has_no_probability_of_a_sentence():
    encoder, _ = twins.make("BERT")
    with pytest.raises(ValueError, match="an encoder sees what comes after"):
        probes.surprisal(encoder, Prompts.of(torch.tensor([[1, 2]])))


def _suite(tmp_path, formulas):
    def sentence(*regions):
        return [{"region_number": i + 1, "content": one} for i, one in enumerate(regions)]

    items = []
    for noun, nouns in (("dog", "dogs"), ("key", "keys"), ("tree", "trees")):
        conditions = [
            {"condition_name": "match", "regions": sentence("The", noun, "", "is", "here")},
            {"condition_name": "mismatch", "regions": sentence("The", nouns, "", "is", "here")},
        ]
        items.append({"item_number": len(items) + 1, "conditions": conditions})
    content = {
        "meta": {"name": "number"},
        "region_meta": {str(i): word for i, word in enumerate("det noun gap verb end".split(), 1)},
        "predictions": [{"type": "formula", "formula": one} for one in formulas],
        "items": items,
    }
    path = tmp_path / "suite.json"
    path.write_text(json.dumps(content))
    return path


def test_a_region_has_the_sum_of_its_tokens_and_predictions_are_judged(tiny, tmp_path):
    formulas = [
        "(4;%match%) < (4;%mismatch%)",
        "(4;%match%) > (4;%mismatch%)",
        "[(4;%match%) - (4;%mismatch%)] < [(1;%match%) + (3;%match%)] & (*;%match%) > (5;%match%)",
        "(3;%match%) = (3;%mismatch%)",
    ]
    suite = tasks.read_syntaxgym(tiny, _suite(tmp_path, formulas))
    found = probes.region_surprisal(tiny, suite)
    plain = probes.surprisal(tiny, suite.prompts)
    assert_close(found.surprisal[1, 0], plain[2][[0, 1, 1, 2, 3]] * torch.tensor([1, 1, 0, 1, 1]))
    verb = found.surprisal[:, :, 3]
    assert found.holds[0].equal(verb[:, 0] < verb[:, 1])
    assert found.holds[1].equal(~found.holds[0])
    whole = found.surprisal[:, 0].sum(1) > found.surprisal[:, 0, 4]
    assert found.holds[2].equal((verb[:, 0] - verb[:, 1] < found.surprisal[:, 0, 0]) & whole)
    assert found.holds[3].all()
    assert found.regions == "det noun gap verb end".split()


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("(4;%match%) < (4;%other%)", "no condition 'other'; there are match, mismatch"),
        ("(9;%match%) < (4;%match%)", "no region 9; they are 1 to 5"),
        ("(4;%match%) + (4;%match%)", "compares nothing"),
        ("(4;%match%) < 4", "is no prediction: at character 14"),
    ],
)
def test_a_prediction_that_cannot_be_read_is_named(tiny, tmp_path, formula, message):
    suite = tasks.read_syntaxgym(tiny, _suite(tmp_path, [formula]))
    with pytest.raises(ValueError, match=message):
        probes.region_surprisal(tiny, suite)


def test_a_suite_without_items_is_refused(tiny, tmp_path):
    path = tmp_path / "suite.json"
    path.write_text('{"predictions": [{"formula": ""}]}')
    with pytest.raises(ValueError, match="'items' is missing"):
        tasks.read_syntaxgym(tiny, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s["meta"].update(metric="mean"), "asks for the 'mean' of a region's surprisals"),
        (lambda s: s["predictions"][0].update(type="order"), "prediction 0: expected type 'formul"),
        (lambda s: s["predictions"].append({}), "prediction 1: expected type 'formula', got {}"),
        (lambda s: _renumbered(s, 1), r"regions are numbered \[2, 3, 4, 5, 6\]; formulas count"),
        (
            lambda s: s["items"][1]["conditions"][1]["regions"].pop(),
            r"item 1, condition 'mismatch': expected regions \[1, 2, 3, 4, 5\]",
        ),
    ],
)
def test_a_suite_that_means_something_else_is_refused(tiny, tmp_path, spoil, message):
    path = _suite(tmp_path, ["(4;%match%) < (4;%mismatch%)"])
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        tasks.read_syntaxgym(tiny, path)


def test_a_published_suite_s_other_fields_are_read_past(tiny, tmp_path):
    path = _suite(tmp_path, ["(4;%match%) < (4;%mismatch%)"])
    plain = tasks.read_syntaxgym(tiny, path)
    content = json.loads(path.read_text())
    content["meta"] |= {"metric": "sum", "author": "somebody", "reference": "", "comment": ""}
    content["predictions"][0] |= {"comment": "agreement"}
    for item in content["items"]:
        item["comment"] = ""
        item["conditions"].reverse()  # the order of conditions is that of the first item
    path.write_text(json.dumps(content))
    found = tasks.read_syntaxgym(tiny, path)
    assert found.name == plain.name == "number"
    assert found.conditions == plain.conditions[::-1] and found.regions == plain.regions
    assert found.prompts.tokens[1].equal(plain.prompts.tokens[0])
    shares = [probes.region_surprisal(tiny, one).accuracy for one in (plain, found)]
    assert_close(*shares)


def _renumbered(content, by):
    for item in content["items"]:
        for condition in item["conditions"]:
            for region in condition["regions"]:
                region["region_number"] += by
