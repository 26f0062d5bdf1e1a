"""Where does a model hold what it knows about a country when it names the capital?

Question   "The capital of France is" Paris. Which states carry the knowledge of the country on
           its way to the answer?
Method     Causal tracing (Meng et al. 2022). The country's embedding is drowned in Gaussian
           noise; then what `stream` is in `window` neighbouring layers of the clean run is put
           back at one token, for every layer and role. Means over `draws` of the noise.
Compare    The noise alone. Bounds by bootstrap over prompts, p-values by sign flips, corrected
           for all layers and roles. The total effect, clean minus noise, is what can come back.
Read       Positive: restoring this state brings the answer back. Early layers at the country
           and late layers at the last token are expected; a peak of the MLPs at the country in
           between is what Meng et al. read as a lookup.
Caveat     Noise puts the model where it has never been, and wide windows make peaks: exchanging
           the country instead (patching.sweep) may show no such place (Zhang & Nanda 2023).
           --severed mlp_out shows what is left when later MLPs are kept from answering.

    python -m experiments.causal_tracing_capitals --window 1
"""

from dataclasses import dataclass
from typing import Literal

from workbench import metrics, models, patching, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 24
    stream: Literal["mlp_out", "attn_out", "resid_post"] = "mlp_out"
    window: int = 5  # layers; a sixth of the model, as in the paper
    noise: float = 3.0  # standard deviations of the countries' embeddings
    draws: int = 3
    severed: patching.Severed = "none"
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=4, window=2, draws=2)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> patching.Tracing:
    """prompts -> model -> noise on the country -> one state restored after another"""
    model = models.load(config.model)
    task = tasks.capitals(model, prompts=config.prompts, seed=config.seed)
    noise = patching.Noise("country", scale=config.noise, draws=config.draws, seed=config.seed)
    return patching.causal_tracing(
        model, task, config.stream, metric=metrics.answer_logprob, noise=noise,
        window=config.window, severed=config.severed, running=patching.Running(seed=config.seed),
    )  # fmt: skip


if __name__ == "__main__":
    runs.main(run, Config)
