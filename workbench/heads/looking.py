"""What heads attend to in one prompt, to be looked at."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture
from workbench import models
from workbench.heads.naming import Head, column


class Looks(NamedTuple):
    """The attention of some heads, and the words that look and are looked at."""

    pattern: Float[Tensor, "shown query key"]
    words: list[str]


def looks(model: HookedModel, prompt: Prompts, heads: Sequence[Head]) -> Looks:
    """The patterns of `heads` in the one prompt; ids where the model has no tokenizer."""
    seen = capture(model, prompt, [Site("pattern", layer) for layer in {one[0] for one in heads}])
    rows = [seen[Site("pattern", head[0])][0, column(model, head)] for head in heads]
    tokenless = getattr(model, "tokenizer", None) is None
    words = prompt.tokens[0].tolist() if tokenless else models.words(model, prompt)[0]
    return Looks(torch.stack(rows).float().cpu(), list(map(str, words)))
