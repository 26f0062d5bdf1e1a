"""Prompts with a known right answer.

Drawn from a seed, in the tokens of the model that is given. Does not know how activations
are read.
"""

from workbench.tasks.agreement import agreement
from workbench.tasks.greater_than import greater_than
from workbench.tasks.induction import induction
from workbench.tasks.ioi import ioi
from workbench.tasks.knowledge import capitals, gender, hypernymy
from workbench.tasks.solved import Solved, solved
from workbench.tasks.task import Task

__all__ = [
    "Solved",
    "Task",
    "agreement",
    "capitals",
    "gender",
    "greater_than",
    "hypernymy",
    "induction",
    "ioi",
    "solved",
]
