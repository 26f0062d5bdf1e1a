"""Can the truth of a statement be read off a model, and from which layer on?

Question   "The capital of France is Paris." and "... is Rome.": is there, at the full stop, a
           linear sign of which one is true? One that holds for wordings it was not learned from?
Method     Logistic probes on the residual stream after every layer, each judged on a template
           that was held out. Every country is in a true and a false statement of every template,
           and every city is as often in either. Regularisation is chosen in the training part.
Compare    Shuffled labels (which give the p-values), a control task that labels countries at
           random, the country alone, random directions, the same model untrained.
Read       Above all of those, with bounds: it can be read off there, by a sign that templates
           share. Equal to shuffled labels: it cannot, by a linear probe, with so few examples.
Caveat     That it can be read off does not say that the model uses it, nor that it is truth: a
           sign of "this city belongs to this country" would do. Facts come back in every
           template, so a probe may know them; see the learned control. Four templates are few:
           bounds over templates are wide.

    python -m experiments.probe_truth_by_layer
"""

from dataclasses import dataclass

from workbench import models, probes, runs
from workbench.tasks import statements


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    subjects: int = 24
    shuffles: int = 20
    seed: int = 0


REHEARSAL = Config(model="tiny", subjects=6, shuffles=3)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> probes.ProbeStudy:
    """statements -> model -> activations by layer -> probes -> study"""
    model = models.load(config.model)
    labelled = statements.truth(model, subjects=config.subjects, seed=config.seed)
    examples = probes.features_of(model, labelled)
    untrained = models.untrained(model, seed=config.seed)

    return probes.study(
        examples,
        task=labelled.name,
        folds="held out",
        baselines={"untrained model": probes.features_of(untrained, labelled)},
        shuffles=config.shuffles,
        seed=config.seed,
    )


if __name__ == "__main__":
    runs.main(run, Config)
