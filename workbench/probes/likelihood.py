"""How surprising is each token? What needs no probe: the model's own probabilities."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Prompts

Before = Literal["bos", "nothing"]
"""What stands before every text: the tokenizer's first (or else its last) special token, or
nothing, and then the first token of a text has no probability."""


@torch.no_grad()
def surprisal(
    model: HookedModel, prompts: Prompts, *, before: Before = "bos", batch_size: int = 32
) -> Float[Tensor, "batch pos"]:
    """-log p of every token given those before it, in nats; 0 where there is none to be given.

    That is behind the end of a text, and at its first token with before="nothing". The natural
    logarithm: SyntaxGym's own numbers are in bits.
    """
    if getattr(model.cfg, "attention_dir", "causal") == "bidirectional":
        raise ValueError(
            "an encoder sees what comes after a token, so it has no probability of a sentence: "
            "take a causal language model"
        )
    extended, shift = _extended(model, prompts, before)
    found = torch.zeros(prompts.tokens.shape)
    order = extended.lengths.cpu().argsort(stable=True)
    for rows in order.split(batch_size):
        part = extended[rows]
        logits = model(part)
        following = part.tokens[:, 1:, None].to(logits.device)
        each = -logits[:, :-1].float().log_softmax(dim=-1).gather(2, following)[..., 0].cpu()
        real = part.mask[:, 1:].cpu()
        each = torch.where(real.bool(), each, 0)
        start = 1 - shift
        found[rows, start : start + each.shape[1]] = each
    return found


def sentence_logprob(
    model: HookedModel, prompts: Prompts, *, before: Before = "bos", batch_size: int = 32
) -> Float[Tensor, " batch"]:
    """log p of each whole text, in nats."""
    found = surprisal(model, prompts, before=before, batch_size=batch_size)
    return -found.double().sum(dim=1).float()


def _extended(model: Any, prompts: Prompts, before: Before) -> tuple[Prompts, int]:
    """The prompts with what stands before them, and how many tokens that is."""
    if before not in ("bos", "nothing"):
        raise ValueError(f'before is "bos" or "nothing", not {before!r}')
    if before == "nothing" or getattr(model.cfg, "default_prepend_bos", False):
        return prompts, 0
    tokenizer = model.tokenizer
    names = ("bos_token_id", "eos_token_id")
    ids = [getattr(tokenizer, name, None) for name in names]
    first = next((one for one in ids if one is not None), None)
    if first is None:
        raise ValueError(
            'this tokenizer has no special token to put before a text: say before="nothing", '
            "and the first token of each text is left out"
        )
    column = torch.full_like(prompts.tokens[:, :1], first)
    return Prompts(torch.cat([column, prompts.tokens], dim=1), prompts.lengths + 1), 1
