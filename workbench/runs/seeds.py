"""The only place that seeds: global random state is set for a run, and put back after it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """While open, Python, numpy and torch draw from `seed`; afterwards they go on as before.

    Analyses draw from generators of their own. This is for libraries that do not.
    """
    import numpy
    import torch

    devices = list(range(torch.cuda.device_count()))
    python, legacy = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        numpy.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(legacy)
