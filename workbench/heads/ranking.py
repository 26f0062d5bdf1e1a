"""What all measures of importance have in common: a score for every head, and so an order."""

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench.heads.naming import Head
from workbench.metrics import Metric
from workbench.results import Result
from workbench.tasks import Task, provenance

Kind = Literal["alone", "slope", "signed slope", "gates", "gating", "set"]
"""What a measure looks at.

alone          a head's loss, all others being there; in the metric's unit
slope          turning a head down a little, without regard to sign; in the metric's unit
signed slope   the same with its sign
gates          the chance that learning keeps a head although it costs; from 0 to 1
gating         whether it stays open, or shut, against pressure; from -1 to 1
set            a head's share of what several do together; in the metric's unit
"""


class Importance(Result):
    """How much each head matters, by some measure. Higher score: the task needs it more.

    NaN is a head that has no score: it is gone from the model, or was not asked about.
    """

    @property
    def way(self) -> str:
        """How it was measured, in a few words; tells results of one study apart."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it measures")

    @property
    def kind(self) -> Kind:
        """Which of the kinds of measure it is."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it measures")

    @property
    def score(self) -> Float[Tensor, "layer head"]:
        """Higher: more important."""
        raise NotImplementedError(f"{type(self).__name__} scores no heads")

    @property
    def score_of_prompts(self) -> Float[Tensor, "layer head batch"] | None:
        """What `score` is the mean of; None where the measure has no number for each prompt."""
        return None

    def ranked(self) -> list[Head]:
        """Every head that has a score, most important first; of equals, the lower one first."""
        return in_order(self.score)


def in_order(score: Float[Tensor, "layer head"]) -> list[Head]:
    """The heads from the highest score down, without those whose score is NaN."""
    flat, width = score.flatten(), score.shape[1]
    order = (-flat).argsort(stable=True).tolist()
    return [(index // width, index % width) for index in order if not flat[index].isnan()]


def labels(model: HookedModel, task: Task, metric: Metric) -> dict[str, Any]:
    """The fields by which a result says what it was measured on, and whether the task is solved."""
    return {"metric": metric.name, "unit": metric.unit, **provenance.labels(model, task)}
