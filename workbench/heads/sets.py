"""Sets of heads, and the edits that ablate all of a set at once."""

from collections.abc import Sequence

from hooks import HookedModel, Positions
from hooks.replay import Cell
from workbench.effects import Source
from workbench.heads.ablating import Ablation, ablating
from workbench.heads.naming import Head
from workbench.tasks import Task


def cells(
    model: HookedModel,
    task: Task,
    sets: Sequence[Sequence[Head]],
    *,
    ablation: Source | Ablation = "zero",
    positions: Positions | None = None,
    seed: int = 0,
) -> list[Cell]:
    """For each set of heads the edits that ablate all of them in the task's clean prompts.

    What is put in their place is what `effects.Source` says: "zero" nothing, "mean" the mean over
    the corrupt prompts' tokens but the first ones, "counterfactual" what the corrupt prompt has,
    "resample" what one of the corrupt prompts has that `seed` draws.
    """
    how = ablating(model, task, ablation, seed=seed)
    return [how.cell(some, positions=positions) for some in sets]
