"""Which rules of grammar does a model know, without any probe?

Question   Of two sentences that differ in one word, is the grammatical one likelier as a whole?
Method     Sum the log-probabilities of all tokens of each sentence, and compare.
Compare    One half, what guessing gives; bounds by phenomenon, p-values adjusted for all of them.
Read       Blue, filled: the model prefers the grammatical sentence; red, filled: the other one.
Caveat     The likelier word wins whatever the rule where the two words differ in frequency: the
           templates have each word in both roles where they can, `polarity` does not. Where one
           sentence has more tokens, it pays for them; the result says in how many pairs.

    python -m experiments.minimal_pairs --file blimp.jsonl
"""

from dataclasses import dataclass

from workbench import models, probes, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    file: str = ""  # json lines as BLiMP has them; none given: templates of our own
    prompts: int = 50  # of each phenomenon of our own
    before: probes.Before = "bos"
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=6)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> probes.MinimalPairs:
    """pairs of sentences -> model -> which is likelier -> share by phenomenon"""
    model = models.load(config.model)
    if config.file:
        pairs = tasks.pairs(model, config.file)
    else:
        pairs = tasks.grammar(model, prompts=config.prompts, seed=config.seed)
    return probes.minimal_pairs(model, pairs, before=config.before, seed=config.seed)


if __name__ == "__main__":
    runs.main(run, Config)
