"""Which heads can be removed, in which order, what does it cost, and what does it save?

Question   Of all attention heads, how many can be removed before a model reads and answers
           noticeably worse? Is the order by what each costs alone a good one? And is the smaller
           model faster?
Method     Heads are removed in several orders, more and more of them: what they write becomes
           its mean over other text. Orders: by what each costs alone (least first); the same,
           but the most important of each cluster of heads that stand in for each other, or
           that write alike, is kept to the end; by learned gates (the surest shut first); by what
           each writes into the answer (least first). The best order's heads, as many as cost
           less than `allowed`, are then removed for real.
Compare    At least five random orders. Quality is the logit difference and the accuracy on the
           prompts of the task, and the mean log-probability of a token (minus the loss) on
           running text. Bounds are over prompts. What goes is judged by text that did not choose
           it. The pruned model must give what the ablated one
           gives; time is measured in turns.
Read       The higher a curve runs, the better the order. In brackets: the mean change over the
           curve. The vertical line is what was removed for real; below it what is left then.
Caveat     Importance was measured on one half of the task's prompts, curves on the other. An
           order for one task says little about others: look at the text's panel. Eight short
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
    passages: int = 12  # half of them choose what goes, half judge it
    averaged: int = 8  # rows of other text, whose mean stands in for a removed head
    candidates: int = 6  # pairs grow as the square of this
    steps: int = 30  # of learning gates
    draws: int = 5  # random orders
    allowed: float = 0.1  # nats that a token of text may lose on average
    seed: int = 0


REHEARSAL = Config(model="tiny-gqa", prompts=4, passages=4, averaged=2, candidates=4, steps=3)
"""The same study in seconds on a CPU, with no download: what the tests run."""


def run(config: Config) -> heads.PruningStudy:
    """prompts -> model -> orders of heads by half of them -> what is left -> the smaller model"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=2 * config.prompts, seed=config.seed, corruption="third")
    train, test = task[: config.prompts], task[config.prompts :]
    means = corpora.topics(model, length=64).halves()[0].batches(config.averaged)[0]
    return heads.study_pruning(
        model, test, _orders(config, model, train),
        text=corpora.prose(model, passages=config.passages), over=means,
        shares=(0.05, 0.1, 0.2, 0.4, 0.6), draws=config.draws, allowed=config.allowed,
        seed=config.seed,
    )  # fmt: skip


def _orders(config: Config, model: models.Model, train: tasks.Task) -> dict[str, list[heads.Head]]:
    """The heads in every order, the first to go first."""
    metric, seed = metrics.logit_diff, config.seed
    alone = heads.ablate_each(model, train, metric=metric, ablation="mean", seed=seed)
    order = alone.least_helpful(alone.effect.numel())
    written = lens.direct_attribution(model, train, seed=seed)
    alike = heads.similarity(model, train[: min(8, config.prompts)], seed=seed)
    chosen = heads.candidates(
        alone.most_helpful(config.candidates), n=config.candidates // 2,
        alike={"writes the answer": written.strongest(config.candidates)},
        similarity=alike.alike("output"), of=alike.heads,
    )  # fmt: skip
    pairs = heads.redundancy(model, train, chosen.heads, metric=metric, seed=seed)
    gates = heads.learn_gates(
        model, train, metric=metric, ablation="mean", seeds=1,
        descent=heads.Descent(steps=config.steps, rate=0.3, prompts=8), seed=seed,
    )  # fmt: skip
    return {
        "importance": order,
        "one of each cluster": heads.keeping(
            heads.cluster_redundant(pairs, seed=seed).kept(), order
        ),
        "one of each alike": heads.keeping(heads.cluster_alike(alike, alone).kept(), order),
        "gates": gates.ranked()[::-1],
        "writes least": written.strongest(len(order))[::-1],
    }


if __name__ == "__main__":
    runs.main(run, Config)
