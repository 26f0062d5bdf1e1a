"""Which attention heads does a model need to name the indirect object?

Question   "When Mary and John went to the store, John gave a drink to" -- the model says
           " Mary". Which of its heads does that depend on?
Method     Ablate each head alone, at all positions, on prompts of several templates, and
           measure logit(indirect object) - logit(subject) at the last token.
Compare    The same prompts without ablation. Bounds are by bootstrap over prompts; p-values by
           sign flips, corrected for testing every head (max-statistic).
Read       Negative: the head was helping. Positive: it got in the way, as negative name
           movers do. Zero: it is not needed, or another head takes over when it is gone.
Caveat     A head that is backed up by another costs nothing alone, so this is no list of all
           heads that take part. Mean ablation (over prompts of three unrelated names) removes
           what a head says about these prompts and keeps what it always says; compare
           with --ablation zero before believing a small effect.

    python -m experiments.head_ablation_ioi --prompts 32
"""

from dataclasses import dataclass

from workbench import heads, metrics, models, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 32
    ablation: heads.Ablation = "mean"
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=4)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> heads.HeadEffects:
    """prompts -> model -> each head alone -> effects with bounds"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed, corruption="third")
    return heads.ablate_each(
        model, task, metric=metrics.logit_diff, ablation=config.ablation, seed=config.seed
    )


if __name__ == "__main__":
    runs.main(run, Config)
