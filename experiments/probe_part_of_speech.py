"""At which depth can a word's part of speech be read off?

Question   Is a word's class linearly readable at the word, and does depth add to what the
           embedding says already?
Method     Multinomial logistic probes on the residual stream after every layer, at every word of
           sentences from a small grammar, or of a treebank (`file`, in CoNLL-U); whole sentences
           are held out.
Compare    A control task with a random class for every word type, the word alone, its position
           alone, shuffled labels, random directions, the same model untrained.
Read       A high accuracy says nothing here: a word's type nearly tells its class, and the word
           alone shows it. Selectivity, task less control, says how much is more than memory.
Caveat     The grammar has one sentence form, so the position tells the class, too: what is not
           above "position alone" is no finding. Sentences of a treebank are the better test.
           There, classes in fewer than 8 sentences are left out.

    python -m experiments.probe_part_of_speech
    python -m experiments.probe_part_of_speech --file en_ewt-ud-dev.conllu --sentences 60
"""

from dataclasses import dataclass

from workbench import models, probes, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    file: str = ""  # a treebank in CoNLL-U; none given: a small grammar of our own
    sentences: int = 30  # of the treebank, the first so many
    layers: tuple[int, ...] = (0, 4, 9, 14, 19, 24, 29)
    shuffles: int = 20
    seed: int = 0


REHEARSAL = Config(model="tiny", sentences=16, layers=(0, 1), shuffles=2)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> probes.ProbeStudy:
    """sentences -> model -> activations at words -> probes -> study"""
    model = models.load(config.model)
    untrained = models.untrained(model, seed=config.seed)
    if config.file:
        words = tasks.read_conllu(
            model, config.file, group="sentence", sentences=config.sentences, unfit="drop"
        ).frequent(8)
        name = f"part of speech in {words.name}"
        examples, beside = (
            probes.word_features(one, words, layers=config.layers) for one in (model, untrained)
        )
    else:
        labelled = tasks.part_of_speech(model, sentences=config.sentences, seed=config.seed)
        name = labelled.name
        examples, beside = (
            probes.features_of(one, labelled, layers=config.layers) for one in (model, untrained)
        )

    return probes.study(
        examples,
        task=name,
        folds=4,
        baselines={"untrained model": beside},
        l2=(1e-3, 1e-1),
        repeats=1,
        shuffles=config.shuffles,
        seed=config.seed,
    )


if __name__ == "__main__":
    runs.main(run, Config)
