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
    several = [messages] if isinstance(messages[0], dict) else list(messages)
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
                f"{text[:60]!r} starts with two {tokenizer.bos_token!r}: the tokenizer puts "
                "one there itself, so leave it out of the text"
            )
        if len(row) > limit:
            raise ValueError(
                f"{text[:60]!r}... has {len(row)} tokens, {_name(model)} takes {limit}: shorten it"
            )
    pad = tokenizer.pad_token_id
    return Prompts.padded(rows, pad=0 if pad is None else pad)


def _strings(model: Any, nested: Any) -> Any:
    if isinstance(nested, int):
        return _tokenizer(model).decode([nested], clean_up_tokenization_spaces=False)
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
