"""Does a probe of the subject's number read the model, or remember words?

Question   "The keys near the cabinet": at "cabinet", is it still readable that the subject is
           plural? For nouns that the probe has never seen?
Method     Logistic probes after every layer at the last noun, whose own number is independent of
           the subject's. Subject nouns are the groups: judged ones were never learned from.
Compare    A control task that gives every word at the last position a random label (Hewitt &
           Liang 2019), that word alone, shuffled labels, random directions, and the same model
           untrained.
Read       Task far above control (selectivity > 0): the probe reads what context wrote there.
           Task no better than control: it could as well have remembered words.
Caveat     A high selectivity does not say that the model uses the number for its next word.

    python -m experiments.probe_control_tasks
"""

from dataclasses import dataclass

from workbench import models, probes, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    nouns: int = 18
    shuffles: int = 20
    seed: int = 0


REHEARSAL = Config(model="tiny", nouns=6, shuffles=3)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> probes.ProbeStudy:
    """prompts -> model -> activations by layer -> probes -> study"""
    model = models.load(config.model)
    labelled = tasks.number(model, nouns=config.nouns, seed=config.seed)
    examples = probes.features_of(model, labelled)
    untrained = models.untrained(model, seed=config.seed)

    return probes.study(
        examples,
        task=labelled.name,
        folds=5,
        baselines={"untrained model": probes.features_of(untrained, labelled)},
        l2=(1e-3, 1e-2, 1e-1, 1.0),
        repeats=2,
        shuffles=config.shuffles,
        seed=config.seed,
    )


if __name__ == "__main__":
    runs.main(run, Config)
