"""Who tells the name movers which name to write?

Question   Late heads write the indirect object's name into the logits. Which earlier heads tell
           them, by their queries, where to look?
Method     Path patching (Wang et al. 2022). First every head, as a sender, to the logits: the
           `movers` whose path helps most are the name movers. Then every head and MLP to the
           queries of those, all other heads held at the clean run. What is sent is what the
           sender says when the prompt names three unrelated people.
Compare    The clean prompts without any edit. Bounds by bootstrap over prompts, p-values by sign
           flips, corrected for all senders.
Read       Negative: cutting this path costs the answer, so the sender helps by it. Positive: it
           gets in the way. --to logits shows the first step alone: who writes the name.
Caveat     The name movers are chosen on the same prompts, and by their direct effect alone. What
           a sender says through another head is not in its path; sum over a circuit is not
           promised. Expect S-inhibition heads: heads that say which name not to look at.

    python -m experiments.path_patching_ioi --prompts 16
"""

from dataclasses import dataclass
from typing import Literal

from hooks import Site
from workbench import metrics, models, patching, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 16
    to: Literal["queries", "logits"] = "queries"
    movers: int = 3  # how many name movers are receivers
    between: patching.Between = "free"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.between == "linear" and self.to != "logits":
            raise ValueError("between='linear' is for to='logits': choose 'free' or 'frozen'")


REHEARSAL = Config(model="tiny-gqa", prompts=4, movers=2)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> patching.PathEffects:
    """prompts -> model -> who writes to the logits -> who tells them by their queries"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed, corruption="third")
    running = patching.Running(seed=config.seed)

    written = patching.paths(
        model, task, to="logits", metric=metrics.logit_diff, between=config.between,
        running=running,
    )  # fmt: skip
    if config.to == "logits":
        return written

    queries = [(Site("q", layer), head) for layer, head in written.most_helpful(config.movers)]
    return patching.paths(
        model, task, to=queries, metric=metrics.logit_diff, between=config.between,
        running=running,
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
