"""Which attention heads does a model need to continue a sequence it has seen before?

Question   Random tokens are said twice. Which heads carry the first time over to the second?
Method     Ablate each head alone, at all positions, and measure the logit of the token that
           came next the first time, against one that did not.
Compare    The same prompts without ablation; bounds by bootstrap over prompts, p-values by sign
           flips corrected for testing every head.
Read       Negative: the head was helping. Expect heads that attend to the previous token in
           early layers and induction heads later (Olsson et al. 2022).
Caveat     Induction heads back each other up: in a model with several, each alone costs
           little. The period is random, so that no head can solve this by position.

    python -m experiments.head_ablation_induction --prompts 32
"""

from dataclasses import dataclass

from workbench import heads, metrics, models, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 16
    ablation: heads.Ablation = "mean"
    seed: int = 0


REHEARSAL = Config(model="tiny-gqa", prompts=4)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> heads.HeadEffects:
    """prompts -> model -> each head alone -> effects with bounds"""
    model = models.load(config.model)
    task = tasks.induction(model, prompts=config.prompts, seed=config.seed)
    return heads.ablate_each(
        model, task, metric=metrics.logit_diff, ablation=config.ablation, seed=config.seed
    )


if __name__ == "__main__":
    runs.main(run, Config)
