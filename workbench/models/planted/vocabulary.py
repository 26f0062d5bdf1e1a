"""The words that planted models know, and tokenizers that know no others."""

from collections.abc import Sequence

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from workbench import words

SPECIAL = ("<s>", "<pad>", "<unk>")
"""The start of every prompt, which the tokenizer puts there; padding; any other word."""

ORDINARY: tuple[str, ...] = (*words.OBJECTS, *words.PLACES, *words.NAMES[:18])
"""Forty words that mean nothing: prompts of the induction task are made of them."""

FIRST_ON, FIRST_OFF = ("rain", "storm", "drizzle", "snow"), ("sun", "wind", "frost", "heat")
SECOND_ON, SECOND_OFF = ("hose", "tap", "bucket", "sprinkler"), ("fence", "bench", "gate", "chair")
FILLER = tuple("the and then later today here near there while after was still by some".split())
ASKS, YES, NO = "so", "wet", "dry"
GATE: tuple[str, ...] = (
    *FIRST_ON, *FIRST_OFF, *SECOND_ON, *SECOND_OFF, *FILLER, ASKS, YES, NO,
)  # fmt: skip
"""A word of weather, a word of the garden, and whether the grass is wet."""

OPEN, CLOSE, VERDICT, BALANCED, UNBALANCED = "(", ")", "?", "yes", "no"
BRACKETS: tuple[str, ...] = (OPEN, CLOSE, VERDICT, BALANCED, UNBALANCED)


def tokenizer(ordinary: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token for each word, words parted by spaces, "<s>" put before every prompt."""
    numbered = {word: index for index, word in enumerate((*SPECIAL, *ordinary))}
    inner = Tokenizer(WordLevel(numbered, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", numbered["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", pad_token="<pad>", unk_token="<unk>"
    )
