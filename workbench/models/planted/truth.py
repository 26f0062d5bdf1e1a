"""What is known about a planted model, as data that a method can be scored against."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Head = tuple[int, int]
"""(layer, head), both counted from zero."""

Edge = str
"""Who reads whom, "a0.h1->a1.h2<k>": the notation of edge attribution patching.

Senders are "input" (token and position), "a0.h1" (head 1 of layer 0) and "m0" (its MLP); readers
are a head's "a1.h2<q>", "<k>" and "<v>", an MLP and "logits". After <k> and <v> heads are counted
as key-value heads.
"""

How = Literal["zero", "mean", "noising", "denoising"]


@dataclass(frozen=True)
class Known:
    """A metric of the planted task's prompts lies between `low` and `high` after an intervention.

    how   "zero": clean prompts, these heads' z set to zero at all positions;
          "mean": set to its mean over the corrupt prompts' tokens but for the first;
          "noising": taken from the corrupt run;
          "denoising": corrupt prompts, these heads' z taken from the clean run.
          Without heads nothing is done: the clean (or corrupt) prompts as they are.
    """

    heads: tuple[Head, ...]
    how: How
    low: float
    high: float
    metric: Literal["logit_diff", "answer_logprob"] = "logit_diff"


@dataclass(frozen=True)
class Truth:
    """What was planted: which heads do what, which edges are the circuit, what ablating costs.

    task        the kind of prompts the model was made for; `tasks.planted` draws them
    roles       what heads are for -> the heads; what is in no role of the mechanism is in
                "orthogonal" (writes where only the logit of <pad> reads) or "silent" (writes zero)
    circuit     the edges of the mechanism
    noising     those of them that alone change the logit difference of the clean prompts when
                they carry what they carry in the corrupt run
    denoising   those that alone change that of the corrupt prompts when they carry what they
                carry in the clean run
    residual    (layer, role of the task) -> logit difference of the corrupt prompts when the
                residual stream entering that layer there is the clean one
    known       numbers that interventions on heads must give
    neurons     what neurons are for -> the neurons (layer, number), where some were planted

    An edge of the circuit that is in neither direction carries the same in both prompts
    (positions, constants), or something else makes up for it. Trained models have no edges here.
    """

    name: str
    what: str
    task: Literal["induction", "gate", "brackets"]
    roles: Mapping[str, tuple[Head, ...]]
    known: tuple[Known, ...]
    circuit: frozenset[Edge] = frozenset()
    noising: frozenset[Edge] = frozenset()
    denoising: frozenset[Edge] = frozenset()
    residual: Mapping[tuple[int, str], float] = field(default_factory=dict)
    neurons: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads of the mechanism: all that have a role in it."""
        idle = ("orthogonal", "silent")
        return tuple(head for role, some in self.roles.items() if role not in idle for head in some)

    @property
    def irrelevant(self) -> tuple[Head, ...]:
        """The heads that change no logit that a task reads."""
        return (*self.roles.get("orthogonal", ()), *self.roles.get("silent", ()))


def exactly(heads: tuple[Head, ...], how: How, value: float, *, room: float = 1e-4) -> Known:
    """The logit difference is `value`, but for rounding."""
    return Known(heads, how, value - room, value + room)
