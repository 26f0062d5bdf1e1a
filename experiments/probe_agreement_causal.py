"""The number of the subject can be read off the last token. Does the model use what is read?

Question   "The key near the cabinets" is. From which layer on can the subject's number be decoded
           at the last token, where the verb will be predicted, and at which layers does the model
           rely on what the probe reads?
Method     A linear probe at each layer, judged on nouns that it never saw. Then take the number
           out at that layer and token (LEACE), so that no linear probe finds it, and let the model
           go on.
Compare    As large a change along random directions (placebo), at the same place; the commonest
           class. Prompts whose attractor has the same number and the other one are mixed, so that
           the attractor, which is the last token, says nothing about the subject.
Read       Above: accuracy. Below: what the erasure costs in logit difference, beside the placebos.
           Decodable with an effect beyond the placebos (filled): used there. Decodable without:
           nothing shows that it is used.
Caveat     Erasing guards against linear readers only, and at one token: an effect of zero does not
           show that the number is used nowhere, as it can be read at the subject again.

    python -m experiments.probe_agreement_causal --prompts 48
"""

from dataclasses import dataclass

from workbench import metrics, models, probes, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 24  # of each kind of attractor
    placebos: int = 29
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=12, placebos=19)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> probes.Amnesia:
    """prompts -> model -> a probe at every layer -> the number erased there -> what it costs"""
    model = models.load(config.model)
    halves = [
        tasks.agreement(model, prompts=config.prompts, seed=config.seed, attractor="other"),
        tasks.agreement(model, prompts=config.prompts, seed=config.seed + 1, attractor="same"),
    ]
    task = tasks.joined("agreement", halves)
    number = [int(task.templates[group].endswith("plural")) for group in task.group]
    words = zip(models.words(model, task.clean), models.words(model, task.corrupt), strict=True)
    nouns = [
        " ".join(sorted((one[at], other[at])))
        for (one, other), at in zip(words, task.positions["subject"], strict=True)
    ]
    examples = probes.features(model, task.clean, number, groups=nouns)
    return probes.amnesic(
        model, task, examples, metric=metrics.logit_diff,
        against=probes.Placebos("norm", config.placebos), seed=config.seed,
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
