"""Which neurons never fire, and which fire like no other at the first token?

Question   How many neurons of each layer are dead on running text, how many follow position
           alone, and which are outliers at first tokens?
Method     One pass over a corpus; statistics of every neuron over all tokens but the first of
           each row, and over first tokens apart.
Compare    Layers with each other; first tokens with all others.
Read       dead: stayed below 1 % of the layer's root mean square on all of the text. positional:
           position explains at least half of the variance. outlying: at least 6 times larger at
           first tokens than at 999 of 1,000 others. extreme: some other token drives it to 50
           standard deviations.
Caveat     Dead on this text is not dead: a rare trigger may not have come by. Gated neurons are
           never exactly zero, so being dead is a matter of a threshold. The model takes a few
           other tokens for first ones (a line break early in a row): neurons that are outlying at
           first tokens are extreme there. Outlying needs some thousand tokens to be told from
           that; with fewer than 1,000 it is by the largest size elsewhere.

    python -m experiments.dead_and_outlier_neurons --tokens 50000
"""

from dataclasses import dataclass

from workbench import corpora, models, neurons, runs


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    corpus: str = "topics"  # or "prose", a file or folder, "hub:NAME"
    tokens: int = 20_000
    length: int = 128  # of each row of text
    k: int = 1  # largest and smallest activations that are kept of each neuron
    seed: int = 0  # nothing is drawn here; every run names one


REHEARSAL = Config(model="tiny", corpus="prose", tokens=300, length=24)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> neurons.Activity:
    """text -> model -> what every neuron did"""
    model = models.load(config.model)
    text = corpora.named(model, config.corpus, length=config.length, most_tokens=config.tokens)
    return neurons.activity(model, text, k=config.k)


if __name__ == "__main__":
    runs.main(run, Config)
