"""Text whose loss is measured beside a task, while heads of it are removed."""

import torch

from hooks import Prompts
from workbench.effects import Source
from workbench.tasks import Task

TEXT = "text"


def check_text(text: Prompts | None, removal: object) -> None:
    """Raise for a removal that would leave text as it is."""
    kind = removal.kind if isinstance(removal, Source) else removal
    if text is not None and kind == "counterfactual":
        raise ValueError(
            "'counterfactual' puts there what a prompt's pair has, and text has no pairs: take "
            "'mean', 'zero' or 'resample', or leave the text out"
        )


def as_task(text: Prompts) -> Task:
    """Text as a task whose answers nobody reads."""
    nothing = torch.zeros(len(text), 1, dtype=torch.long)
    return Task(TEXT, text, text, nothing, nothing + 1, {}, nothing[:, 0])
