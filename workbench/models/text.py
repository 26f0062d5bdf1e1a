"""Between strings and token ids, by the model's own tokenizer and nothing else."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from hooks import Prompts


def prompts(model: Any, texts: Sequence[str] | str) -> Prompts:
    """Your own strings as `Prompts`.

    No BOS token is put before them unless the tokenizer itself does; two are refused, and so
    is a prompt that is empty or longer than the model can take: nothing is truncated.
    """
    listed = [texts] if isinstance(texts, str) else list(texts)
    if not listed:
        raise ValueError("no texts were given: expected at least one string")
    odd = [text for text in listed if not isinstance(text, str)]
    if odd:
        raise TypeError(f"expected texts, found {odd[0]!r}: of token ids, make Prompts yourself")
    tokenizer = _tokenizer(model)
    rows = [list(tokenizer(text)["input_ids"]) for text in listed]
    return checked(model, rows, listed)


def chat(
    model: Any, messages: Sequence[dict[str, str]] | Sequence[Sequence[dict[str, str]]]
) -> Prompts:
    """Messages ({"role": ..., "content": ...}) through the model's chat template.

    One conversation or several; the prompt ends where the assistant's answer begins.
    """
    tokenizer = _tokenizer(model)
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(f"{_name(model)} has no chat template: it is not a chat model")
    if not messages:
        raise ValueError("no messages were given")
    one = isinstance(messages, Sequence) and isinstance(messages[0], dict)
    several: Any = [messages] if one else messages
    for message in (message for one in several for message in one):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(
                f"{message!r} is no message: expected a list of "
                '{"role": "user", "content": "..."}'
            )
    texts = [
        tokenizer.apply_chat_template(list(one), tokenize=False, add_generation_prompt=True)
        for one in several
    ]
    rows = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    return checked(model, rows, texts)


def words(model: Any, tokens: Prompts | Int[Tensor, "..."]) -> list[Any]:
    """Each token as its string, nested like `tokens`; of Prompts, the real ones only."""
    if isinstance(tokens, Prompts):
        pairs = zip(tokens.tokens.tolist(), tokens.lengths.tolist(), strict=True)
        return [_strings(model, row[:length]) for row, length in pairs]
    return _strings(model, tokens.tolist())


def checked(model: Any, rows: list[list[int]], texts: Sequence[str]) -> Prompts:
    """Rows of ids as Prompts, or an error that names the text that cannot be one."""
    tokenizer = _tokenizer(model)
    bos, limit = tokenizer.bos_token_id, model.cfg.n_ctx
    for row, text in zip(rows, texts, strict=True):
        if not row:
            raise ValueError(f"{text!r} has no tokens: a prompt needs at least one")
        if bos is not None and row[:2] == [bos, bos]:
            raise ValueError(
                f"{text[:60]!r} starts with two {tokenizer.bos_token!r}: leave out of the text "
                "what the tokenizer puts there itself"
            )
        if len(row) > limit:
            raise ValueError(
                f"{text[:60]!r}... has {len(row)} tokens, {_name(model)} takes {limit}: shorten it"
            )
    pad = tokenizer.pad_token_id
    return Prompts.padded(rows, pad=0 if pad is None else pad)


def piece(tokenizer: Any, token: int) -> str:
    """The token as its string, with the space that belongs to it.

    Decoders of the SentencePiece kind strip the first token's space, so it is decoded in second
    place: after itself.
    """
    alone, twice = (
        tokenizer.decode([token] * times, clean_up_tokenization_spaces=False) for times in (1, 2)
    )
    return twice.removeprefix(alone) if twice.endswith(alone) else alone


def _strings(model: Any, nested: Any) -> Any:
    if isinstance(nested, int):
        return piece(_tokenizer(model), nested)
    return [_strings(model, inner) for inner in nested]


def _tokenizer(model: Any) -> Any:
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(
            f"{_name(model)} was loaded without a tokenizer: pass one to models.wrap, "
            "or make Prompts from token ids yourself"
        )
    return tokenizer


def _name(model: Any) -> str:
    return model.origin.name
