"""What kind of head is each of a model's heads?

Question   Which heads look at the token before, find what followed an earlier saying (induction),
           rest on the first token or another place, copy what they attend to or argue against
           it, move names, or keep names from being moved?
Method     Score every head for every type: attention on random tokens that are said twice and on
           the task's own prompts; what it says of single tokens; on "When Mary and John ...,
           John gave it to", what it moves from the names to the last token.
Compare    Each score with its null: the same attention shuffled within its rows, other tokens of
           the same output, the head's values rotated before they are written, or sign flips over
           prompts; where heads attend also with the furthest head of each of 19 copies of the
           model with its weights redrawn. p-values are corrected for testing every head.
Read       effect: the score beyond its null. A head is named when corrected p ≤ 0.05 and the
           effect is at least the type's threshold, so that with many prompts a tiny effect is not
           named. A head may be of several types, or of none.
Caveat     A type says what a head does on these prompts, not that the model needs it: a head
           whose work others do too is of a type and costs nothing when it is ablated. Name
           movers are told by their direct effect, which the heads after them may undo.

    python -m experiments.head_types --prompts 32
"""

from dataclasses import dataclass

from workbench import heads, models, runs, tasks


@dataclass(frozen=True)
class Config:
    """The run that is reported; every field can be overridden on the command line."""

    model: str = "smollm2-135m"
    prompts: int = 32  # of the task, and as many of random tokens
    level: float = 0.05
    seed: int = 0


REHEARSAL = Config(model="tiny", prompts=4)
"""The same study in a second on a CPU, with no download: what the tests run."""


def run(config: Config) -> heads.HeadTypes:
    """prompts -> model -> scores and nulls of every type -> the heads of each"""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed)
    return heads.types(model, task, prompts=config.prompts, level=config.level, seed=config.seed)


if __name__ == "__main__":
    runs.main(run, Config)
