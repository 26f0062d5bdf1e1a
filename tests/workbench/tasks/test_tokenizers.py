"""Tokenizers unlike those of the models here: two digits at once, a first token of their own."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from workbench import models, tasks, words


def model(*, split: str, extra: list[str], begins: bool):
    vocabulary = ["<unk>", "<begin>", " ", ",", "."]
    vocabulary += [form for word in words.all_words() for form in (word, f" {word}")] + extra
    numbered = {word: index for index, word in enumerate(dict.fromkeys(vocabulary))}
    inner = Tokenizer(WordLevel(numbered, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(split), "isolated")
    inner.decoder = decoders.Fuse()
    if begins:
        inner.post_processor = processors.TemplateProcessing(
            single="<begin> $A", special_tokens=[("<begin>", 1)]
        )
    ours = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<begin>", pad_token="<unk>"
    )
    config = SimpleNamespace(n_ctx=64, d_vocab=len(ours), default_prepend_bos=begins)
    return SimpleNamespace(tokenizer=ours, cfg=config, origin=SimpleNamespace(name="made up"))


@pytest.fixture(scope="module")
def two_digits():
    pairs = [f"{number:02}" for number in range(100)]
    return model(split=r" ?[A-Za-z]+|[0-9]{2}|.", extra=pairs, begins=False)


@pytest.fixture(scope="module")
def beginning():
    digits = list("0123456789")
    return model(split=r" ?[A-Za-z]+|[0-9]|.", extra=digits, begins=True)


def test_two_digits_in_a_token_are_all_greater_endings(two_digits):
    task = tasks.greater_than(two_digits, prompts=12, seed=0)
    rows = torch.arange(12)
    years = models.words(two_digits, task.clean.tokens[rows, task.positions["YY"]])
    corrupt = models.words(two_digits, task.corrupt.tokens[rows, task.positions["YY"]])
    assert corrupt == ["01"] * 12
    for row, year in enumerate(years):
        answer = models.words(two_digits, task.answer[row][task.answer[row] >= 0])
        foil = models.words(two_digits, task.foil[row][task.foil[row] >= 0])
        assert answer == [f"{number:02}" for number in range(int(year) + 1, 100)]
        assert foil == [f"{number:02}" for number in range(int(year) + 1)]


def test_a_published_label_of_two_digits_stays_whole(two_digits, tmp_path):
    (tmp_path / "years.csv").write_text(
        "clean,corrupted,label\nThe war began in 1397 and ended in 13,"
        "The war began in 1301 and ended in 13,97\n"
    )
    task = tasks.read_eap_ig(two_digits, tmp_path / "years.csv")
    assert models.words(two_digits, task.answer[0]) == ["98", "99"]
    assert len(task.foil[0]) == 98


def test_a_tokenizer_without_digits_cannot_ask_for_years():
    with pytest.raises(ValueError, match="no year can be asked for: this tokenizer writes neither"):
        tasks.greater_than(
            model(split=r" ?[A-Za-z]+|[0-9]+|.", extra=[], begins=False), prompts=4, seed=0
        )


def test_a_first_token_of_the_tokenizer_stands_before_every_prompt(beginning):
    for draw in (tasks.ioi, tasks.induction, tasks.greater_than, tasks.agreement):
        task = draw(beginning, prompts=8, seed=0)
        for prompts in (task.clean, task.corrupt):
            assert (prompts.tokens[:, 0] == 1).all()
            assert not (prompts.tokens[:, 1:] == 1).any()


def test_roles_count_the_first_token(beginning):
    rows = torch.arange(8)
    task = tasks.ioi(beginning, prompts=8, seed=0)
    assert task.clean.tokens[rows, task.positions["IO"]].equal(task.answer[:, 0])
    assert task.clean.tokens[rows, task.positions["S2"]].equal(task.foil[:, 0])
    task = tasks.induction(beginning, prompts=8, seed=0)
    assert task.clean.tokens[rows, task.positions["PREVIOUS"]].equal(task.answer[:, 0])


def test_a_model_without_tokenizer_repeats_ids_of_its_whole_vocabulary():
    config = SimpleNamespace(n_ctx=20, d_vocab=12)
    task = tasks.induction(
        SimpleNamespace(tokenizer=None, cfg=config), prompts=40, seed=0, period=(4, 6)
    )
    assert set(task.clean.tokens[task.clean.mask.bool()].tolist()) == set(range(12))
    with pytest.raises(ValueError, match="12 of 12 tokens are ordinary, 14 are needed"):
        tasks.induction(
            SimpleNamespace(tokenizer=None, cfg=config), prompts=4, seed=0, period=(4, 7)
        )
