"""Which heads carry the answer to an indirect object, which write it, and which take over?

Question   "When Mary and John went to the store, John gave a drink to": which heads tell this
           prompt from the one in which Mary gave, which of them write the name themselves (name
           movers), and which take over once the strongest of those are gone (backups)?
Method     Exchange one head's output (z, at all tokens) between a clean prompt and the one with
           the names exchanged, for every head, in both directions. Then the same on the path to
           the logits alone, all other heads held. Then, on other prompts, the `movers` that write
           most give their mean instead, and step by step goes the head whose loss costs most
           beyond what it costs alone: half of those prompts choose it, half judge it.
Compare    The same prompts without a patch; a head's own words with its whole effect; its cost
           with the others gone with its cost alone. Bounds by bootstrap over prompts, p-values by
           sign flips corrected for all heads; a step's, on prompts that did not choose it.
Read       a, b: blue carries the answer, red works against it. Large in denoise and small in
           noise: enough but not needed; the other way round: it does nothing without others.
           c: a diamond without a bar carries what others write (in the default model 20.0, 17.4
           and 19.2); a bar is written by the head itself: 23.3, 29.1 and 23.0 for the answer,
           24.4 and 29.0 against it, as negative name movers do. A bar longer than its diamond:
           without it others make up for the loss. d: who they are. From a diamond near 0 to a
           bar on the left: a backup (23.2, 23.1, 23.7). From a diamond on the right to a bar near
           0: it worked against the answer, and does so less (24.4, 29.0).
Caveat     A patch turns a head from one answer to the other, so its effect is about twice that of
           ablation (head_ablation_ioi). Heads of one layer do not hear each other: the backups
           of layer 23 write the name all along (c), and losing one of them costs little while
           later heads give way. The search is greedy and ends after `steps`: there may be more.

    python -m experiments.patching_ioi_heads --prompts 32
"""

from dataclasses import dataclass

from workbench import heads, metrics, models, runs, studies, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 16
    searched: int = 24  # other prompts: half choose who takes over, half judge
    movers: int = 3  # the strongest writers, which are removed
    steps: int = 5
    ablation: heads.Ablation = "mean"
    seed: int = 0


REHEARSAL = Config(model="tiny-gqa", prompts=4, searched=12, movers=1, steps=1)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> studies.AnswerHeads:
    """prompts -> model -> every head patched, its path to the logits -> who takes over"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts + config.searched, seed=config.seed)
    return studies.answer_heads(
        model, task[: config.prompts], search=task[config.prompts :], metric=metrics.logit_diff,
        movers=config.movers, steps=config.steps, ablation=config.ablation, seed=config.seed,
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
