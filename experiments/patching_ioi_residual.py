"""Where in the prompt, and until which layer, is the answer to an indirect object?

Question   "When Mary and John went to the store, John gave a drink to": that the second name is
           John's decides the answer. At which token does the residual stream carry this,
           layer by layer, on its way to the last one?
Method     Exchange the residual stream of a clean and a corrupt prompt at one layer and one token
           (activation patching), for every layer and every role, in both directions: denoise
           puts clean values into corrupt prompts, noise corrupt values into clean ones.
Compare    The same prompts without a patch. Bounds by bootstrap over prompts, p-values by
           sign flips corrected for all places of a map.
Read       Blue: the place carries the answer; restoring it brings the answer back (denoise),
           breaking it takes it away (noise). The default model has it at the second name (S2)
           up to layer 20, at the last token (END) from layer 24 on, and at both between them,
           where attention moves it. With --corruption third all names differ.
Caveat     What the two prompts share cannot show: with exchanged names (swap) the tokens before
           S2 are the same, and their columns are zero by construction. One layer's stream
           holds all that earlier layers wrote: rows say by when, not by whom.

    python -m experiments.patching_ioi_residual --prompts 32
"""

from dataclasses import dataclass

from workbench import metrics, models, patching, runs, tasks
from workbench.tasks.ioi import Corruption


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 16
    corruption: Corruption = "swap"
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=4)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> patching.Sweeps:
    """prompts -> model -> the stream patched at every layer and role -> two maps with bounds"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed, corruption=config.corruption)
    return patching.sweeps(
        model, task, "resid_pre", metrics=[metrics.logit_diff], over="role",
        running=patching.Running(seed=config.seed),
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
