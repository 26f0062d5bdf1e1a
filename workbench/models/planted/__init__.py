"""Models whose mechanism is known because our own code put it there: the truth of tests and demos.

Hand-wired ones are exact by construction; trained ones are trained here from a seed. Loaded by
name like any other (`models.load("planted/or")`); `truth(model)` says what was planted. Knows
no task: `tasks.planted(model, ...)` draws the prompts that a model was made for.
"""

from workbench.models.planted.catalog import NAMES, PREFIX, SHAPED, load, truth, unwrapped
from workbench.models.planted.truth import Edge, Head, Known, Truth

__all__ = [
    "NAMES",
    "PREFIX",
    "SHAPED",
    "Edge",
    "Head",
    "Known",
    "Truth",
    "load",
    "truth",
    "unwrapped",
]
