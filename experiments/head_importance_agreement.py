"""Do six ways to ask how much a head matters give the same answer?

Question   Pruning and circuit papers rank attention heads by ablation, by gradients, by learned
           gates or by Shapley values. Does the ranking depend on the way, and for which heads?
Method     On the same prompts, with the same metric: ablate each head alone; take the gradient
           of a mask on it (Michel et al. 2019); learn hard-concrete gates at a price (Voita et
           al. 2019); gate heads causally, under pressure to open and to shut (Nam et al. 2025);
           and share what a shortlist does together between its heads (Shapley values).
Compare    Each two ways by the rank correlation of their scores, with bounds by bootstrap over
           prompts, and by how many of their first heads they have in common.
Read       Correlation 1: the same order. Where a head's places differ, the table says why:
           one that costs little alone and much in a set is backed up; one whose slope is near
           zero though its loss costs much is saturated.
Caveat     Most heads do next to nothing, so that their order is noise and pulls correlations to
           zero; look at the overlap of the first heads too. The gates see few steps here.

    python -m experiments.head_importance_agreement --prompts 8
"""

from dataclasses import dataclass

from workbench import heads, metrics, models, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 8
    ablation: heads.Ablation = "mean"
    second_ablation: heads.Ablation = "counterfactual"
    seeds: int = 2  # of the gates and the causal gating
    steps: int = 20  # of each of their four fits
    rate: float = 0.7
    players: int = 8
    orders: int = 4
    top: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ablation == self.second_ablation:
            raise ValueError(f"ablation and second_ablation are both {self.ablation!r}: take two")


REHEARSAL = Config(model="tiny", prompts=4, steps=1, players=3, top=3)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> heads.ImportanceAgreement:
    """prompts -> model -> every measure of every head -> how alike they are"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed, corruption="third")
    descent = heads.Descent(steps=config.steps, rate=config.rate, prompts=config.prompts)
    measured = heads.importance(
        model, task, metric=metrics.logit_diff,
        ablations=(config.ablation, config.second_ablation),
        effort=heads.Effort(config.seeds, descent, config.players, config.orders),
        seed=config.seed,
    )  # fmt: skip
    return heads.agreement(measured, top=config.top, seed=config.seed)


if __name__ == "__main__":
    runs.main(run, Config)
