import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from hooks import Prompts
from workbench import models
from workbench.models import tiny as tiny_models


def test_prompts_are_padded_and_know_their_lengths(tiny):
    prompts = models.prompts(tiny, ["The capital of France is", "Mary went to"])
    assert prompts.lengths.tolist() == [5, 3]
    assert models.words(tiny, prompts) == [
        ["The", " capital", " of", " France", " is"],
        ["Mary", " went", " to"],
    ]
    assert models.words(tiny, prompts.tokens[0, :2]) == ["The", " capital"]


def test_digits_are_split_and_words_are_not(tiny):
    [pieces] = models.words(tiny, models.prompts(tiny, "year 1732."))
    assert pieces == ["year", " ", "1", "7", "3", "2", "."]


def test_a_word_keeps_its_space_and_the_text_comes_back(tiny):
    text = "When Mary and John went to the store, John gave a drink to"
    [pieces] = models.words(tiny, models.prompts(tiny, text))
    assert "".join(pieces) == text


def test_nothing_is_prepended_unless_the_tokenizer_does(tiny):
    assert models.prompts(tiny, "Mary").lengths.tolist() == [1]
    assert tiny.cfg.default_prepend_bos is False


def prepending() -> models.Model:
    tokenizer = tiny_models.tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    inner = tiny_models._gpt2(len(tokenizer))
    return models.wrap(inner, tokenizer)


def test_what_the_tokenizer_prepends_stays_and_twice_is_refused():
    model = prepending()
    assert models.words(model, models.prompts(model, "Mary went")) == [["<s>", "Mary", " went"]]
    assert model.cfg.default_prepend_bos is True
    assert model.origin.bos == "'<s>' by the tokenizer"
    with pytest.raises(ValueError, match="starts with two '<s>'"):
        models.prompts(model, "<s>Mary went")


def test_transformer_lens_prepends_no_second_one_either():
    model = prepending()
    expected = models.prompts(model, "Mary went").tokens
    assert model.to_tokens("Mary went").equal(expected)
    assert model.to_tokens("<s>Mary went", prepend_bos=False).equal(expected)
    for run in (model.to_tokens, model, lambda text: model.generate(text, verbose=False)):
        with pytest.raises(ValueError, match=r"would start with two '<s>'.*prepend_bos=False"):
            run("<s>Mary went")


def test_a_word_keeps_the_space_that_sentence_piece_hides():
    pieces = ["▁Mary", "▁went", "▁to", "▁the", "▁st", "ore", "."]
    inner = Tokenizer(Unigram([("<unk>", 0.0), *((one, -1.0) for one in pieces)], unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    model = models.wrap(tiny_models._gpt2(len(tokenizer)), tokenizer)
    [found] = models.words(model, models.prompts(model, "Mary went to the store."))
    assert found == [" Mary", " went", " to", " the", " st", "ore", "."]
    assert tokenizer.decode(tokenizer("Mary")["input_ids"]) == "Mary"  # the space is hidden


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no texts were given"),
        ([""], "'' has no tokens"),
        (["Mary " * 300], r"has \d+ tokens, tiny takes 256"),
    ],
)
def test_what_cannot_be_a_prompt_is_refused(tiny, texts, message):
    with pytest.raises(ValueError, match=message):
        models.prompts(tiny, texts)


def test_token_ids_are_no_texts(tiny, unchecked_types):
    with pytest.raises(TypeError, match=r"expected texts, found 5: .* make Prompts yourself"):
        models.prompts(tiny, [5, 6])


@pytest.mark.parametrize(
    "messages", ["Say hello.", {"role": "user", "content": "Hi"}, [{"rol": "user"}], ["Hi"]]
)
def test_what_is_no_message_is_shown_how_one_looks(default_model, messages, unchecked_types):
    with pytest.raises(ValueError, match="is no message: expected a list"):
        models.chat(default_model, messages)


def test_a_model_that_is_no_chat_model_says_so(tiny):
    with pytest.raises(ValueError, match="tiny has no chat template"):
        models.chat(tiny, [{"role": "user", "content": "Mary"}])


def test_a_model_without_a_tokenizer_says_what_to_do():
    model = models.wrap(tiny_models._gpt2(50))
    with pytest.raises(ValueError, match=r"without a tokenizer: pass one to models\.wrap"):
        models.prompts(model, "Mary")


def test_the_template_of_the_default_model_is_its_own(default_model):
    one = [{"role": "user", "content": "Say hello."}]
    prompts = models.chat(default_model, one)
    [pieces] = models.words(default_model, prompts)
    text = "".join(pieces)
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n")
    assert isinstance(models.chat(default_model, [one, one]), Prompts)
