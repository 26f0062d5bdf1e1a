"""Which attention heads does a task need, which stand in for each other, and what can go?

Question   A head that costs nothing alone may be useless, or backed up by another. Which is it,
           and how many heads can be removed before that matters?
Method     On prompts whose indirect object is asked for: each head ablated alone; the kinds of
           heads there are; which write alike; pairs of those that cost most, write most into the
           answer or are of a kind; clusters of pairs that cost more than their sum; a search for
           who takes over when the most important head is gone; how much of what a head wrote
           comes back without it; and a short pruning curve.
Compare    Pairs with the sum of each alone; a head's direct effect with its total one; orders of
           removal with five random ones. Bounds by bootstrap over prompts, p-values by sign flips,
           corrected within each view.
Read       a: blue heads help. b: the colours say of which kinds a head is. c: dark pairs write
           alike. d: blue pairs stand in for each other, red ones work in series. e: heads joined
           below the cut share at least half of what they cost. f: bars to the left cost more
           once the head is gone. g: bars to the right make up for a head that helped. h: the
           higher, the better the order.
Caveat     A pair of heads that cost and write nothing, are of no kind and not alike the chosen
           ones is not among the candidates. Half of the prompts choose and order, the other half
           judges the curve; a few short passages bound a loss loosely, and the heads that are
           removed to see what it saves were chosen by the same curve: head_pruning_curve judges
           them on other text.

    python -m experiments.head_redundancy --prompts 24
"""

from dataclasses import dataclass

from workbench import corpora, heads, lens, models, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 24  # half of them choose and order, half judge
    passages: int = 6
    candidates: int = 5  # by what they cost alone, and as many by what they write
    ablation: heads.Ablation = "mean"
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=12, passages=2, candidates=2)
"""The same study in seconds on a CPU, with no download: what the tests run."""


def run(config: Config) -> heads.HeadRedundancy:
    """prompts -> model -> each head, pairs, clusters, backups, self-repair, curve -> one page"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed, corruption="third")
    written = lens.direct_attribution(model, task[: config.prompts // 2], seed=config.seed)
    return heads.study_redundancy(
        model, task, text=corpora.prose(model, passages=config.passages),
        kinds={"writes the answer": written.strongest(config.candidates)},
        ablation=config.ablation, extent=heads.Extent(candidates=config.candidates),
        seed=config.seed,
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
