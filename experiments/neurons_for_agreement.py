"""Are there neurons for grammatical number, and does agreement need them?

Question   Can the number of a subject be read from a few neurons, and does the verb's form depend
           on them?
Method     Choose the neurons at the subject that best tell singular from plural on half of the
           nouns, fit a probe on them, judge it on the other nouns; then mean-ablate them, one by
           one and together.
Compare    The probe with probes chosen and fitted on shuffled labels; the ablation with as many
           random neurons of the same layers.
Read       accuracy far above the shuffled ones: number is there to be read. effect < 0 and below
           that of random neurons: the model uses those neurons.
Caveat     Neurons that separate best need not be the ones that are used, and number is kept in
           many places at once: an ablation that costs little does not show that they are idle.

    python -m experiments.neurons_for_agreement --prompts 96
"""

from dataclasses import dataclass

import torch

from workbench import metrics, models, neurons, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 96
    shuffles: int = 100
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=20, shuffles=5)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> neurons.ConceptStudy:
    """prompts -> model -> neurons that know the number -> what agreement loses without them"""
    model = models.load(config.model)
    task = tasks.agreement(model, prompts=config.prompts, seed=config.seed)
    plural = torch.tensor([task.templates[one].endswith("plural") for one in task.group.tolist()])
    found = neurons.find_concept(
        model, task, plural, concept="number of the subject", positions=task.positions["subject"],
        groups=nouns(task), shuffles=config.shuffles, seed=config.seed,
    )  # fmt: skip
    return neurons.study_concept(model, task, found, metric=metrics.logit_diff, seed=config.seed)


def nouns(task: tasks.Task) -> torch.Tensor:
    """Which noun is the subject, in either number: a corrupt prompt has the other one."""
    at = task.positions["subject"][:, None]
    one, other = (some.tokens.gather(1, at)[:, 0] for some in (task.clean, task.corrupt))
    return torch.minimum(one, other)


if __name__ == "__main__":
    runs.main(run, Config)
