"""Which attention heads carry the answer to an indirect object, and which work against it?

Question   "When Mary and John went to the store, John gave a drink to": which heads tell this
           prompt from the one in which Mary gave, and do all of them pull towards the answer?
Method     Exchange one head's output (z, at all tokens) between a clean prompt and the one with
           the names exchanged, for every head, in both directions: denoise puts clean values
           into corrupt prompts, noise corrupt values into clean ones.
Compare    The same prompts without a patch. Bounds by bootstrap over prompts, p-values by
           sign flips corrected for all heads.
Read       Blue: the head carries the answer, as name movers and the heads that steer them do
           (Wang et al. 2022). Red: it works against it, as negative name movers do. In the
           default model 20.0, 23.3, 17.4 and 29.1 are the strongest for it, 24.4 and 29.0
           against it. Large in denoise and small in noise: enough but not needed, others do
           the same; the other way round: it does nothing without others.
Caveat     A patch turns a head from one answer to the other, it does not take the head away: its
           effect is about twice that of ablation, and backups that wake only when a head is
           silent do not show. Compare with head_ablation_ioi.

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
