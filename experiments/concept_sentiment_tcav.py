"""Does a pleasant context push the model towards "happy"?

Question   "It was a wonderful trip" is told from "It was a usual trip" by the activations at its
           end. When the model decides how somebody felt, is it this direction that moves it?
Method     A concept activation vector (a linear classifier of pleasant against plain sentences) at
           every layer, and the derivative of log p(happy) - log p(sad) along it, in prompts about
           people of whom nothing pleasant or unpleasant is said (TCAV, Kim et al. 2018).
Compare    Concepts made of random plain sentences, told from others in the same way.
Read       Positive and filled: more of the concept would make "happy" likelier, and none of the
           random ones does so in any layer as often as chance allows. Outside of the band, but
           not filled: some layer of thirty is, by chance. The TCAV score is the share of prompts
           in which the derivative is positive.
Caveat     A derivative says what a small step would do, from where the prompts are; steer along
           the direction before believing in large ones. The t-test over runs of the original
           paper is kept beside it, but it calls random concepts significant too.

    python -m experiments.concept_sentiment_tcav --feeling unpleasant
"""

from dataclasses import dataclass
from typing import Literal

from workbench import metrics, models, probes, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    feeling: Literal["pleasant", "unpleasant"] = "pleasant"
    examples: int = 40
    prompts: int = 24
    random_concepts: int = 199
    seed: int = 0


REHEARSAL = Config(model="tiny", examples=6, prompts=6, random_concepts=39)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> probes.Tcav:
    """sentences -> model -> a direction at every layer -> the metric's derivative along it"""
    model = models.load(config.model)
    task = tasks.feelings(model, prompts=config.prompts, seed=config.seed)
    count, seed = config.examples, config.seed
    concept = tasks.feeling_sentences(config.feeling, count=count, seed=seed)
    plain = tasks.feeling_sentences("neutral", count=4 * count, seed=seed)
    return probes.tcav(
        model, task, models.prompts(model, concept), models.prompts(model, plain),
        metric=metrics.logit_diff, name=f"{config.feeling} sentences",
        random_concepts=config.random_concepts, seed=config.seed,
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
