"""A study of probes as a result: by layer, beside its controls."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from workbench.results import Result

LEVEL = 0.05


def _means(text: str) -> dict[str, str]:
    return {"means": text}


@dataclass(frozen=True, eq=False)
class ProbeStudy(Result):
    """Share of right answers on held-out groups, by layer. Above the controls: it can be read off.

    That something can be read off does not say that the model uses it. Bounds are 95 %, over
    groups and redrawn folds; `p` is how often shuffled labels do as well in any layer, so it is
    corrected for all of them. `chosen` is the accuracy when the layer, too, is chosen inside the
    training part. `steer` is the mean change in what `steered` names when the activations are
    pushed from class 0 to class 1; positive: the model follows. NaN in layers not steered.
    """

    accuracy: Float[Tensor, " layer"] = field(metadata=_means("share right, held out"))
    low: Float[Tensor, " layer"] = field(metadata=_means("lower 95 % bound of accuracy"))
    high: Float[Tensor, " layer"] = field(metadata=_means("upper 95 % bound of accuracy"))
    p: Float[Tensor, " layer"] = field(
        metadata=_means("p-value against shuffled labels, corrected")
    )
    balanced: Float[Tensor, " layer"] = field(metadata=_means("mean share recognised of a class"))
    auroc: Float[Tensor, " layer"] = field(metadata=_means("area under the curve"))
    calibration: Float[Tensor, " layer"] = field(metadata=_means("expected calibration error"))
    information: Float[Tensor, " layer"] = field(metadata=_means("usable information, bits"))
    compression: Float[Tensor, " layer"] = field(metadata=_means("uniform over online code"))
    shuffled_compression: Float[Tensor, " layer"] = field(metadata=_means("of shuffled labels"))
    shuffled: Float[Tensor, "layer shuffle"] = field(metadata=_means("accuracy, labels shuffled"))
    random_direction: Float[Tensor, " layer"] = field(metadata=_means("accuracy, random direction"))
    baseline: Float[Tensor, "other layer"] = field(metadata=_means("accuracy, other features"))
    baselines: list[str] = field(metadata={"axis": "other"})
    correct: Float[Tensor, "layer batch"] = field(metadata=_means("share of repeats right"))
    l2: Float[Tensor, "layer fold"] = field(metadata=_means("regularisation chosen inside"))
    layers: list[int] = field(metadata={"axis": "layer"})
    majority: float
    chosen: float
    chosen_low: float
    chosen_high: float
    splits: str
    classes: int
    examples: int
    groups: int
    task: str
    what: str
    stream: str
    model: str
    model_digest: str
    control: Float[Tensor, " layer"] | None = None
    control_low: Float[Tensor, " layer"] | None = None
    control_high: Float[Tensor, " layer"] | None = None
    selectivity: Float[Tensor, " layer"] | None = None
    selectivity_low: Float[Tensor, " layer"] | None = None
    selectivity_high: Float[Tensor, " layer"] | None = None
    control_compression: Float[Tensor, " layer"] | None = None
    steer: Float[Tensor, " layer"] | None = None
    steer_low: Float[Tensor, " layer"] | None = None
    steer_high: Float[Tensor, " layer"] | None = None
    steer_p: Float[Tensor, " layer"] | None = None
    steer_placebo: Float[Tensor, "layer draw"] | None = None
    steered: str = ""
    caveat: str = ""

    def significant(self, level: float = LEVEL) -> list[int]:
        """The layers that beat shuffled labels (corrected p), in order."""
        return [self.layers[at] for at in (self.p <= level).nonzero()[:, 0].tolist()]

    @property
    def best(self) -> int:
        """The place of the layer with the highest accuracy; `chosen` is what it is worth."""
        return int(self.accuracy.argmax())

    def sentence(self) -> str:
        """What was found, and what it has to be held against."""
        at, found = self.best, self.significant()
        text = (
            f"{self.task} can be read off {self.what} of {self.model} with "
            f"{self.chosen:.1%} [{self.chosen_low:.1%}, {self.chosen_high:.1%}] right when the "
            f"layer is chosen in training ({self.examples} examples, {self.groups} groups, "
            f"{self.splits}); the most frequent label gives {self.majority:.1%}, shuffled labels "
            f"{float(self.shuffled.mean()):.1%}, a random direction "
            f"{float(self.random_direction[at]):.1%}. "
        )
        if not found:
            text = (
                f"That {self.task} can be read off {self.what} of {self.model} is not significant "
                f"in any of {len(self.layers)} layers (corrected p > {LEVEL}): "
                f"{self.chosen:.1%} [{self.chosen_low:.1%}, {self.chosen_high:.1%}] right where "
                f"the most frequent label gives {self.majority:.1%}. "
            )
        return (text + self._details(at, found) + self._pushed() + self.caveat).strip()

    def _details(self, at: int, found: list[int]) -> str:
        text = (
            f"{len(found)} of {len(self.layers)} layers beat shuffled labels (corrected p ≤ "
            f"{LEVEL}), layer {self.layers[at]} most: {float(self.accuracy[at]):.1%}, labels told "
            f"{float(self.compression[at]):.2f} times shorter. "
        )
        if self.selectivity is not None and self.control is not None:
            low, high = self.selectivity_low, self.selectivity_high
            assert low is not None and high is not None
            text += (
                f"A control task is learned to {float(self.control[at]):.1%} there: selectivity "
                f"{100 * float(self.selectivity[at]):+.1f} points "
                f"[{100 * float(low[at]):+.1f}, {100 * float(high[at]):+.1f}]. "
            )
        equal = [
            f"{name} ({float(values[at]):.1%})"
            for name, values in zip(self.baselines, self.baseline, strict=True)
            if float(values[at]) >= float(self.low[at])
        ]
        if found and equal:
            text += f"No better than {', '.join(equal)}: no claim about the model. "
        return text

    def _pushed(self) -> str:
        if self.steer is None:
            return ""
        assert self.steer_p is not None and self.steer_placebo is not None
        assert self.steer_low is not None and self.steer_high is not None
        effect = self.steer
        where = effect.isfinite().nonzero()[:, 0].tolist()
        sure = [at for at in where if bool(self.steer_p[at] <= LEVEL)]
        at = max(sure or where, key=lambda one: abs(float(effect[one])))
        count = self.steer_placebo.shape[1]
        verdict = (
            f"more than {count} random pushes as long in {len(sure)} of {len(where)} layers"
            if sure
            else f"no more than {count} random pushes as long in any of {len(where)} layers: "
            "nothing shows that the model uses this direction there"
        )
        return (
            f"Pushing along the direction changes {self.steered} by {float(effect[at]):+.3f} "
            f"[{float(self.steer_low[at]):+.3f}, {float(self.steer_high[at]):+.3f}] in layer "
            f"{self.layers[at]} (corrected p = {float(self.steer_p[at]):.3f}), {verdict}. "
        )

    def headline(self) -> dict[str, Any]:
        """Accuracy with the layer chosen in training, its bounds, and what it is held against."""
        at = self.best
        found: dict[str, Any] = {
            "accuracy": self.chosen,
            "low": self.chosen_low,
            "high": self.chosen_high,
            "majority": self.majority,
            "best_layer": self.layers[at],
            "compression": float(self.compression[at]),
            "significant": len(self.significant()),
        }
        if self.selectivity is not None:
            found["selectivity"] = float(self.selectivity[at])
        if self.steer_p is not None:
            found["steers"] = int((self.steer_p <= LEVEL).sum())
        return found

    def table(self) -> str:
        """One line a layer: accuracy with bounds, then what it is held against."""
        names = ["layer", "accuracy", "bounds", "p", "auroc", "control", "select.", "shuffled"]
        names += ["bits", "x shorter"]
        lines = ["".join(f"{name:<{16 if name == 'bounds' else 10}}" for name in names).rstrip()]
        for at, layer in enumerate(self.layers):
            bounds = f"[{float(self.low[at]):.3f}, {float(self.high[at]):.3f}]"
            cells = [f"{layer}", f"{float(self.accuracy[at]):.3f}", bounds]
            cells += [f"{float(self.p[at]):.3f}", f"{float(self.auroc[at]):.3f}"]
            for values in (self.control, self.selectivity):
                cells.append("-" if values is None else f"{float(values[at]):.3f}")
            cells.append(f"{float(self.shuffled[at].mean()):.3f}")
            cells += [f"{float(self.information[at]):.2f}", f"{float(self.compression[at]):.2f}"]
            lines.append(
                "".join(f"{one:<{16 if n == 2 else 10}}" for n, one in enumerate(cells)).rstrip()
            )
        return "\n".join(lines)
