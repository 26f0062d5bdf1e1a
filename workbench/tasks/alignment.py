"""Which tokens a stretch of text became, for any tokenizer."""

from collections.abc import Sequence
from typing import Any

from workbench.tasks.build import Span, UnfitError
from workbench.tasks.tokens import pieces


def token_spans(tokenizer: Any, text: str) -> tuple[list[int], list[Span]]:
    """The ids of `text`, and from which character to which each of them stands.

    Tokens that the tokenizer adds stand nowhere: (0, 0). Without offsets of its own, what a
    tokenizer decodes to is followed along the text.
    """
    if getattr(tokenizer, "is_fast", False):
        found = tokenizer(text, return_offsets_mapping=True)
        return list(found["input_ids"]), [tuple(pair) for pair in found["offset_mapping"]]
    ids = list(tokenizer(text)["input_ids"])
    return ids, _followed(tokenizer, text, ids)


def align(tokenizer: Any, text: str, spans: Sequence[Span]) -> tuple[list[int], list[Span]]:
    """The ids of `text`, and the first and last token of each of `spans` of its characters.

    A token belongs to a span when it covers any of its characters, so a token that covers two
    words belongs to both. A span without a token is refused.
    """
    ids, covered = token_spans(tokenizer, text)
    found = []
    for start, stop in spans:
        if not 0 <= start < stop <= len(text):
            raise UnfitError(
                f"characters {start} to {stop} are no part of {text[:60]!r}, which has {len(text)}"
            )
        inside = [
            index
            for index, (low, high) in enumerate(covered)
            if low < high and low < stop and high > start
        ]
        if not inside:
            raise UnfitError(
                f"{text[start:stop]!r} (characters {start} to {stop} of {text[:60]!r}) is in no "
                f"token: the tokens are {pieces(tokenizer, ids)}"
            )
        found.append((inside[0], inside[-1]))
    return ids, found


def _followed(tokenizer: Any, text: str, ids: list[int]) -> list[Span]:
    """Where each token ends: as far as the text decoded up to it agrees with the text."""
    special = set(getattr(tokenizer, "all_special_ids", []))
    spans: list[Span] = []
    at, real = 0, []
    for one in ids:
        if one in special:
            spans.append((0, 0))
            continue
        real.append(one)
        decoded = tokenizer.decode(
            real, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        # A character cut in two decodes to a mark of its own, which the text does not have.
        end = max(at, _agreement(decoded, text))
        spans.append((at, end))
        at = end
    if text[at:].strip():
        raise UnfitError(
            f"the tokenizer gives no offsets, and what it decodes leaves {text!r} at "
            f"{text[at : at + 20]!r}: take a fast tokenizer"
        )
    return spans


def _agreement(decoded: str, text: str) -> int:
    """How many characters of `text` the decoded string has, whatever spaces begin either."""
    ahead = len(text) - len(text.lstrip())
    common = 0
    for one, other in zip(decoded.lstrip(), text.lstrip(), strict=False):
        if one != other:
            break
        common += 1
    return ahead + common if common else 0
