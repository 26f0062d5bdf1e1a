"""How many heads can go, and does it matter which go first?

Question   Of all attention heads, how many can be removed before a model reads and answers
           noticeably worse? Is the order by what each costs alone a good one?
Method     Heads are removed in several orders, more and more of them: their output becomes its
           mean, which gives the logits of a model that was pruned with that mean folded into a
           bias. Orders: by what each costs alone (least first); the same, but the most
           important of each cluster of heads that stand in for each other is kept to the end;
           by what each writes into the answer (least first); the first one reversed.
Compare    At least five random orders. Quality is the logit difference and the accuracy on the
           prompts of the task, and the mean log-probability of a token (minus the loss) on
           running text. Bounds are over prompts.
Read       The higher a curve runs, the better the order. In brackets: the mean change over the
           curve. `largest(loss, ...)` gives the share that can go for less than a loss.
Caveat     Importance was measured on one half of the task's prompts, curves on the other. An
           order for one task says little about others: look at the text's panel. Sixteen short
           passages bound a loss loosely.

    python -m experiments.head_pruning_curve --prompts 16
"""

from dataclasses import dataclass

from workbench import corpora, heads, lens, metrics, models, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 16  # to order the heads by, and as many others for the curves
    passages: int = 8
    candidates: int = 10  # pairs grow as the square of this
    draws: int = 5  # random orders
    seed: int = 0


REHEARSAL = Config(model="tiny-gqa", prompts=4, passages=2, candidates=4)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> heads.PruningCurve:
    """prompts -> model -> orders of heads by half of them -> what is left on the others"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=2 * config.prompts, seed=config.seed, corruption="third")
    train, test = task[: config.prompts], task[config.prompts :]
    alone = heads.ablate_each(
        model, train, metric=metrics.logit_diff, ablation="mean", seed=config.seed
    )
    order = alone.least_helpful(alone.effect.numel())
    written = lens.direct_attribution(model, train, seed=config.seed)
    chosen = heads.candidates(
        alone.most_helpful(config.candidates), n=config.candidates // 2,
        alike={"writes the answer": written.strongest(config.candidates)},
    )  # fmt: skip
    pairs = heads.redundancy(
        model, train, chosen.heads, metric=metrics.logit_diff, seed=config.seed
    )
    clusters = heads.cluster_redundant(pairs, seed=config.seed)
    orders = {
        "importance": order,
        "one of each cluster": heads.keeping(clusters.kept(), order),
        "writes least": written.strongest(len(order))[::-1],
        "reverse": order[::-1],
    }
    return heads.curve(
        model, test, orders, text=corpora.prose(model, passages=config.passages),
        draws=config.draws, shares=(0.05, 0.1, 0.2, 0.4, 0.6), seed=config.seed,
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
