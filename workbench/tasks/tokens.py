"""How a tokenizer spells words: which are one token, and at which token a word stands."""

from collections.abc import Sequence
from typing import Any

from workbench.models.text import piece

_BEFORE = "the"
"""Words are judged as they stand in a sentence, after another word and a space."""


def tokenizer_of(model: Any) -> Any:
    """The model's tokenizer, which it must have to be given words."""
    if model.tokenizer is None:
        raise ValueError(
            "this model has no tokenizer, so it cannot be given words: pass one to models.wrap, "
            "or take tasks.induction, which needs none"
        )
    return model.tokenizer


def encoded(tokenizer: Any, text: str) -> list[int]:
    """The ids of a prompt, with whatever the tokenizer itself puts around it."""
    return list(tokenizer(text)["input_ids"])


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token as its string, for a message."""
    return [piece(tokenizer, one) for one in ids]


def continuation(tokenizer: Any, text: str, word: str) -> list[int] | None:
    """The ids that `word` adds to `text`; None where it changes the tokens of `text` itself."""
    before, whole = (
        list(tokenizer(one, add_special_tokens=False)["input_ids"]) for one in (text, text + word)
    )
    return whole[len(before) :] if whole[: len(before)] == before else None


def token_at(tokenizer: Any, text: str, start: int, stop: int) -> int:
    """The index of the last token of the characters from `start` up to `stop`."""
    if not tokenizer.is_fast:  # no offsets: count the tokens of the text up to the word's end
        return len(encoded(tokenizer, text[:stop])) - 1
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    inside = [index for index, (low, high) in enumerate(offsets) if low < stop and high > start]
    return inside[-1]


def single(tokenizer: Any, words: Sequence[str]) -> list[str]:
    """Those of `words` that are one known token after a space."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    spelled = ((word, continuation(tokenizer, _BEFORE, f" {word}")) for word in words)
    return [word for word, ids in spelled if ids and len(ids) == 1 and ids[0] != unknown]


def enough(model: Any, words: Sequence[str], *, what: str, least: int) -> list[str]:
    """Those of `words` that are single tokens for this model's tokenizer: at least `least`."""
    fitting = single(tokenizer_of(model), words)
    if len(fitting) < least:
        raise ValueError(
            f"{len(fitting)} of {len(words)} {what} are single tokens for this tokenizer, "
            f"at least {least} are needed: tasks.make takes prompts of your own"
        )
    return fitting
