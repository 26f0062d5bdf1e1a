"""Can the truth of a statement be read off a model, and from which layer on?

Question   "The capital of France is Paris." and "... is Rome.": is there, at the full stop, a
           linear sign of which one is true? One that holds for wordings it was not learned from?
Method     Logistic probes on the residual stream after every layer, each judged on a template
           that was held out. Every country is in a true and a false statement of every template,
           and every city is as often in either. Regularisation is chosen in the training part.
           Then push from false to true (the difference of means over three templates) at the full
           stop of statements of the fourth, and see whether " true" gets likelier than " false"
           after "This statement is".
Compare    Shuffled labels (which give the p-values), a control task that labels countries at
           random, the country alone, random directions, the same model untrained. For the push:
           random ones as long.
Read       Above all of those, with bounds: it can be read off there, by a sign that templates
           share. Equal to shuffled labels: it cannot, by a linear probe, with so few examples.
           Filled below: the push does more than random ones, so the model follows the direction.
Caveat     That it can be read off does not say that the model uses it, nor that it is truth: a
           sign of "this city belongs to this country" would do. Facts come back in every
           template, so a probe may know them; see the learned control. Four templates are few:
           bounds over templates are wide.

    python -m experiments.probe_truth_by_layer
"""

from dataclasses import dataclass

from workbench import metrics, models, probes, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    subjects: int = 24
    shuffles: int = 20
    pushed: int = 12  # subjects whose statements are pushed
    pushed_layers: tuple[int, ...] = (4, 9, 14, 19, 24, 29)
    said: tuple[str, str] = (" true", " false")
    seed: int = 0


REHEARSAL = Config(
    model="tiny", subjects=6, shuffles=3, pushed=4, pushed_layers=(0, 1), said=(" happy", " sad")
)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> probes.ProbeStudy:
    """statements -> model -> activations by layer -> probes -> pushes along what they read"""
    model = models.load(config.model)
    labelled = tasks.truth(model, subjects=config.subjects, seed=config.seed)
    examples = probes.features_of(model, labelled)
    untrained = models.untrained(model, seed=config.seed)

    study = probes.study(
        examples,
        task=labelled.name,
        folds="held out",
        baselines={"untrained model": probes.features_of(untrained, labelled)},
        l2=(1e-3, 1e-2, 1e-1, 1.0),
        shuffles=config.shuffles,
        seed=config.seed,
    )

    others = ("capital", "city", "called")
    learned = tasks.truth(model, subjects=config.subjects, seed=config.seed, templates=others)
    verdicts = tasks.verdicts(
        model, subjects=config.pushed, seed=config.seed, template="named", said=config.said
    )
    return probes.steered(
        study, model, verdicts, probes.features_of(model, learned, layers=config.pushed_layers),
        metric=metrics.logit_diff, positions=verdicts.positions["statement"],
        layers=config.pushed_layers, seed=config.seed,
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
