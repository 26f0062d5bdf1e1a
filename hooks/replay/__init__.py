"""Many edited runs from one recorded run: the same numbers as full forward passes, for less.

A *cell* is a set of edits at sites, as `intervening` takes them. `plan` records one run of the
prompts and finds out what each cell can change; `run` gives the logits of every cell and prompt
that is changed, `watch` shows what flows through chosen sites there. What provably cannot differ
from the recorded run is not computed:

    layers      blocks below the first site that a cell changes
    positions   tokens before the first changed one (causal models: keys and values are kept)
    cells       prompts in which the replacement is what stands there already, bit for bit
    reads       rows and columns of the logits that nobody reads; in the last block, all but the
                keys and values of positions that are not read

A cell that enters at a low layer is joined by those that enter above it, so that weights are
read once a layer for all of them. Where a saving is not valid for a model it is switched off,
and `Plan.savings` says why. `run` checks itself: some cells are also run in full.
"""

from hooks.replay.cells import Cell
from hooks.replay.checking import ReplayMismatch
from hooks.replay.memory import BudgetTooSmall
from hooks.replay.planning import Plan, plan
from hooks.replay.reading import Reads
from hooks.replay.recording import Savings
from hooks.replay.running import Answers, Trail, recorded, run
from hooks.replay.seeing import watch
from hooks.replay.watching import Seen

__all__ = [
    "Answers",
    "BudgetTooSmall",
    "Cell",
    "Plan",
    "Reads",
    "ReplayMismatch",
    "Savings",
    "Seen",
    "Trail",
    "plan",
    "recorded",
    "run",
    "watch",
]
