"""Which heads write the indirect object's name into the last token's logits?

Question   At the last token the model prefers " Mary" to " John". Who wrote that there?
Method     Split the logit difference into what every head and MLP wrote, through the final norm
           with its scale as it was (direct logit attribution). The parts add up exactly.
Compare    Zero: a head that writes neither name. Bounds by bootstrap over prompts, p-values by
           sign flips corrected for all heads.
Read       Positive: it writes for the indirect object (a name mover). Negative: against it.
Caveat     Direct only: a head that works through later heads shows nothing here. Compare with
           head_ablation_ioi, which shows what is needed but not where it writes.

    python -m experiments.direct_attribution_ioi --prompts 32
"""

from dataclasses import dataclass

from workbench import lens, models, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 32
    seed: int = 0


REHEARSAL = Config(model="tiny-gqa", prompts=4)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> lens.DirectAttribution:
    """prompts -> model -> what each component wrote"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed)
    return lens.direct_attribution(model, task, seed=config.seed)


if __name__ == "__main__":
    runs.main(run, Config)
