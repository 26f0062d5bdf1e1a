"""In which layer does a model know the capital of a country?

Question   "The capital of France is": after which layer could " Paris" be read off already?
Method     Read what leaves each layer at the last token through the final norm and the
           unembedding (logit lens).
Compare    The capital of another country, at the same place.
Read       Log-probability of the right capital: the higher, the surer. It stays ahead of the
           other capital from the depth that the sentence names.
Caveat     Early layers speak another language than the last one: a low value there does not
           show that the answer is absent, only that this lens does not see it.

    python -m experiments.logit_lens_capitals
"""

from dataclasses import dataclass

from workbench import lens, models, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 24
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=4)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> lens.LogitLens:
    """prompts -> model -> every layer through the unembedding"""
    model = models.load(config.model)
    task = tasks.capitals(model, prompts=config.prompts, seed=config.seed)
    return lens.logit_lens(model, task, seed=config.seed)


if __name__ == "__main__":
    runs.main(run, Config)
