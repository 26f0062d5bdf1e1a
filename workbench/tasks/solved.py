"""Does the model do what is about to be explained?"""

from dataclasses import dataclass

import torch

from hooks import HookedModel, last_logits
from workbench.statistics import Estimate, derive, estimate, proportion
from workbench.tasks.task import Task, logit_difference


@dataclass(frozen=True)
class Solved:
    """How well a model does a task. Higher is better; 1/2 and 0 nats are chance.

    accuracy           share of prompts whose answer is likelier than the foil
    logit_difference   log p(answer) - log p(foil) at the last position, in nats
    """

    model: str
    task: str
    accuracy: Estimate
    logit_difference: Estimate

    @property
    def is_solved(self) -> bool:
        """Whether chance is below both lower bounds."""
        return self.accuracy.low > 0.5 and self.logit_difference.low > 0

    def sentence(self) -> str:
        """What was found, in words."""
        right, lead = self.accuracy, self.logit_difference
        numbers = (
            f"the answer is likelier than the foil on {right.value:.0%} of {right.n} prompts "
            f"[{right.low:.0%}, {right.high:.0%}], by {lead.value:+.2f} nats "
            f"[{lead.low:+.2f}, {lead.high:+.2f}]"
        )
        if self.is_solved:
            return f"{self.model} solves {self.task}: {numbers}."
        return (
            f"{self.model} is not shown to do better than chance on {self.task}: {numbers}. "
            "What an analysis of it finds may explain noise."
        )


@torch.no_grad()
def solved(model: HookedModel, task: Task, *, batch_size: int = 32, seed: int = 0) -> Solved:
    """Run the clean prompts once; the bounds come from a bootstrap over prompts with `seed`."""
    found = []
    for start in range(0, len(task), batch_size):
        part = task[start : start + batch_size]
        logits = last_logits(model, part.clean)[:, 0].float().cpu()
        found.append(logit_difference(logits, part))
    difference = torch.cat(found)
    return Solved(
        model.origin.name if hasattr(model, "origin") else type(model).__name__,
        task.name,
        proportion(difference > 0),
        estimate(difference, seed=derive(seed, "solved", task.name)),
    )
