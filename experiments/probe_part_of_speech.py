"""At which depth can a word's part of speech be read off?

Question   Is a word's class linearly readable at the word, and does depth add to what the
           embedding says already?
Method     Multinomial logistic probes on the residual stream after every layer, at every word of
           sentences from a small grammar; whole sentences are held out.
Compare    A control task with a random class for every word type, the word alone, its position
           alone, shuffled labels, random directions, the same model untrained.
Read       A high accuracy says nothing here: a word's type nearly tells its class, and the word
           alone shows it. Selectivity, task less control, says how much is more than memory.
Caveat     The grammar has one sentence form, so the position tells the class, too: what is not
           above "position alone" is no finding. Sentences of a treebank are the better test.

    python -m experiments.probe_part_of_speech
"""

from dataclasses import dataclass

from workbench import models, probes, runs
from workbench.tasks import statements


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    sentences: int = 30
    layers: tuple[int, ...] = (0, 4, 9, 14, 19, 24, 29)
    shuffles: int = 20
    seed: int = 0


REHEARSAL = Config(model="tiny", sentences=16, layers=(0, 1), shuffles=2)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> probes.ProbeStudy:
    """sentences -> model -> activations at words -> probes -> study"""
    model = models.load(config.model)
    labelled = statements.part_of_speech(model, sentences=config.sentences, seed=config.seed)
    examples = probes.features_of(model, labelled, layers=config.layers)
    untrained = models.untrained(model, seed=config.seed)

    return probes.study(
        examples,
        task=labelled.name,
        folds=4,
        baselines={
            "untrained model": probes.features_of(untrained, labelled, layers=config.layers)
        },
        l2=(1e-3, 1e-1),
        repeats=1,
        shuffles=config.shuffles,
        seed=config.seed,
    )


if __name__ == "__main__":
    runs.main(run, Config)
