"""What do a model's neurons fire at, what do they write, and do they matter?

Question   Which neurons fire at few tokens, what do those promote, can a sentence say what they
           do, and what does running text lose without them?
Method     One pass over a corpus for all neurons; for those that are sparsest in its first third
           the tokens they fire at anywhere, their output weights through the last norm, an
           explanation by rules, and mean ablation.
Compare    Explanations with those of other neurons, on documents they were not made from; each
           neuron's loss with no loss.
Read       score near 1: what the neuron does can be said in a list of tokens; near the others'
           scores: the explanation says nothing about this neuron. loss < 0: it was helping.
Caveat     The neurons are chosen for firing rarely, so they are easier to explain than most; one
           that is rarer still, but silent in the first third, has no page.
           Tokens are not meanings; what fires rarely is seen rarely, and its numbers rest on few
           tokens.

    python -m experiments.neuron_atlas --tokens 20000 --neurons 50
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
    neurons: int = 48
    exact: int = 8  # of them also ablated
    seed: int = 0


REHEARSAL = Config(model="tiny-gqa", corpus="prose", tokens=300, length=24, neurons=6, exact=2)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> neurons.Atlas:
    """text -> model -> all neurons -> the sparsest, closely"""
    model = models.load(config.model)
    text = corpora.named(model, config.corpus, length=config.length, most_tokens=config.tokens)
    return neurons.atlas(model, text, n=config.neurons, exact=config.exact, seed=config.seed)


if __name__ == "__main__":
    runs.main(run, Config)
