"""Which edges let a model end a span of years after it began?

Question   "The war lasted from the year 1732 to the year 17" -- which writers must be heard by
           which readers for the next digits to be later than 32?
Method     Score every edge by integrated gradients (EAP-IG, Hanna et al. 2024) on some prompts;
           then, on others, keep the first edges of the ranking and cut all others, which carry
           what the prompt with a year early in the century has there. The model's digits are
           single tokens, so the answers are all later tens digits together (Hanna et al. 2023).
Compare    As many edges drawn at random, over a curve of sizes; 0 is no edge, 1 the whole model.
Read       The curve reaches 1 where the circuit does all that the model does; above 1, edges that
           get in the way were left out. In the default model 141 edges keep half, a fifth of all
           keeps 91 %, and edges at random nothing. Below, the strongest edges: the year enters by
           MLP 0 and goes by values to heads 20.8 and 18.6, and by them to MLPs 21 to 24, which
           write the digits. CPR and CMD are the areas of MIB (Mueller et al. 2025).
Caveat     Scores are estimates; faithfulness is measured. Cutting an edge leaves the early year
           in its place, not silence: what both years share is kept by every circuit. With half as
           many prompts no edge stands out (p) among so many.

    python -m experiments.circuit_greater_than --prompts 32
"""

from dataclasses import dataclass

from workbench import metrics, models, patching, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 16  # for the scores, and as many others for the curve
    draws: int = 3  # random circuits of each size
    seed: int = 0


REHEARSAL = Config(model="tiny-gqa", prompts=4, draws=2)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> patching.CircuitStudy:
    """prompts -> model -> score of every edge -> circuits of growing size on other prompts"""
    model = models.load(config.model)
    task = tasks.greater_than(model, prompts=2 * config.prompts, seed=config.seed)
    train, test = task[: config.prompts], task[config.prompts :]
    scores = patching.attribute_edges(model, train, metric=metrics.logit_diff)
    return patching.study_circuit(
        model, test, scores, metric=metrics.logit_diff, draws=config.draws, seed=config.seed
    )


if __name__ == "__main__":
    runs.main(run, Config)
