"""How does the number of a subject reach the verb, past a noun of the other number?

Question   "The key near the cabinets" is, not are. Where is the number of "key" kept while the
           model reads on, and when does it arrive where the verb will stand?
Method     Exchange one stream of activations between a prompt and the same one with the subject
           in the other number, at one layer and one token, for all of them, in both directions:
           denoise puts clean values into corrupt prompts, noise corrupt into clean ones.
Compare    The same prompts without a patch; the nearer noun (attractor) is the same in both.
           Bounds by bootstrap over prompts, p-values by sign flips corrected for all places.
Read       Blue: the place carries the subject's number. The default model has it at the subject
           up to layer 26 and at the attractor, the last token, from layer 28 on: it is moved
           at the very end. With --stream mlp_out or attn_out: which layers wrote it there.
Caveat     Singular and plural subjects are both among the prompts, so that a preference for one
           number whatever the subject does not show. On the axis stand the words that all
           prompts share, the role where they differ, and "…" where there is none.

    python -m experiments.patching_agreement --prompts 32
"""

from dataclasses import dataclass

from hooks.sites import Stream
from workbench import metrics, models, patching, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 32
    stream: Stream = "resid_pre"
    over: patching.Over = "position"
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=4)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> patching.Sweeps:
    """prompts -> model -> the stream patched at every layer and token -> two maps with bounds"""
    model = models.load(config.model)
    task = tasks.agreement(model, prompts=config.prompts, seed=config.seed)
    return patching.sweeps(
        model, task, config.stream, metrics=[metrics.logit_diff], over=config.over,
        running=patching.Running(seed=config.seed),
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
