"""Are capitals kept in a few neurons?

Question   Do the same few neurons take part whenever the model names a capital, and does it lose
           and gain the answer with them?
Method     Integrated gradients of p(answer) along each layer's neurons at the last token; neurons
           that are strong for most prompts are set to zero, and doubled (Dai et al. 2022).
Compare    As many random neurons of the same layers; the same neurons on another kind of facts.
Read       suppressed < 0 and amplified > 0, both beyond random neurons and other facts: the
           relation goes through these neurons.
Caveat     They may serve the form of the question (a city comes next) rather than any fact: that
           they are shared by many countries speaks for it. Completeness of the attribution is
           reported as `gap`.

    python -m experiments.knowledge_neurons_capitals --prompts 32 --steps 20
"""

from dataclasses import dataclass

from workbench import models, neurons, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 16
    steps: int = 8  # of the integral; `gap` says whether they were enough
    threshold: float = 0.2
    shared: float = 0.7
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=4, steps=3)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> neurons.KnowledgeNeurons:
    """prompts -> model -> attributions -> shared neurons -> without them, with twice as much"""
    model = models.load(config.model)
    capitals = tasks.capitals(model, prompts=config.prompts, seed=config.seed)
    kinds = tasks.hypernymy(model, prompts=config.prompts, seed=config.seed)
    return neurons.knowledge(
        model, capitals, other=kinds, steps=config.steps, threshold=config.threshold,
        shared=config.shared, seed=config.seed,
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
