"""Where random numbers come from: a seed and labels, never a global generator."""

import hashlib
import json
from typing import TypeAlias

import numpy as np
import torch

Randomness: TypeAlias = int | torch.Generator | np.random.Generator
"""A seed, or a generator that is drawn from (and so moves on)."""


def derive(seed: int, *labels: str) -> torch.Generator:
    """A generator of its own for each (seed, labels), by SHA-256; no stream disturbs another.

    torch keeps 32 bits of a seed: among 1000 streams, two coincide with probability 1e-4.
    """
    digest = hashlib.sha256(json.dumps([seed, *labels]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def numpy_generator(seed: Randomness) -> np.random.Generator:
    """The numpy generator that a seed or a torch generator stands for."""
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, torch.Generator):
        words = torch.randint(2**62, (2,), generator=seed, device=seed.device)
        return np.random.default_rng(words.tolist())
    return np.random.default_rng(seed)
