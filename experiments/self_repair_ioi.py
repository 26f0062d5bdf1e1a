"""When a head that names the indirect object is removed, does the rest of the model make up for it?

Question   "When Mary and John went to the store, John gave a drink to" -- some heads write
           " Mary" at the last position. Without one of them, is the answer weaker by what that
           head wrote? If not, who makes up for it?
Method     The heads that write most into the logit difference at the last position (direct
           attribution), each removed there alone: its output becomes its mean over prompts of
           three unrelated names. What it wrote itself is taken off, and what changes besides is
           split into the last norm, which divides by less, the other heads and the MLPs after
           it (Rushing & Nanda 2024). The parts add up exactly.
Compare    The direct effect with the total one, prompt by prompt; bounds by bootstrap over
           prompts, p-values by sign flips, corrected for all heads removed.
Read       direct < 0: the head wrote for the answer. What the rest of the model adds is total -
           direct: above 0 it makes up for the loss (self-repair), below 0 it loses still more.
           For heads that write against the answer all signs are turned.
Caveat     The heads are those with the largest direct effect on the same prompts. A removed
           head is an unusual input to what comes after it, so that some of what changes may be
           no more than that: compare --ablation zero and --at all.

    python -m experiments.self_repair_ioi --removed 10
"""

from dataclasses import dataclass

from workbench import heads, lens, models, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 32
    removed: int = 10  # each costs one forward pass of all prompts
    ablation: heads.Ablation = "mean"
    at: heads.Where = "last"
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=4, removed=3)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> heads.SelfRepair:
    """prompts -> model -> who writes the answer -> each of them removed -> who makes up for it"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed, corruption="third")
    written = lens.direct_attribution(model, task, seed=config.seed)
    return heads.self_repair(
        model, task, written.strongest(config.removed), ablation=config.ablation, at=config.at,
        seed=config.seed,
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
