"""From a model and prompts to what kind of head each one is."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hooks import HookedModel, Prompts
from hooks import heads as numbering
from workbench import tasks
from workbench.heads.kinds import attending, chance, copying, moving, successors
from workbench.heads.kinds.attending import OFFSET, PLACE, PLAIN
from workbench.heads.kinds.measured import Measured
from workbench.heads.kinds.reading import check_additive
from workbench.heads.kinds.result import HeadTypes
from workbench.heads.looking import looks
from workbench.heads.naming import Head
from workbench.tasks import Task, solved
from workbench.tasks.provenance import of_model

_FEWEST = 2
_SHOWN = 3  # heads of each type whose attention is kept to be looked at


def types(
    model: HookedModel,
    task: Task,
    *,
    prompts: int = 32,
    period: tuple[int, int] = (8, 16),
    level: float = 0.05,
    batch_size: int = 16,
    memory: str | int = "2GB",
    seed: int = 0,
) -> HeadTypes:
    """Score every head for every type, on random repeated tokens and on the task's own prompts.

    Where a head attends is asked of `prompts` prompts of different random tokens that are said
    twice (`tasks.induction`, whose `period` it is), and again of the clean prompts of `task`.
    What it copies is asked of tokens of the vocabulary, which name it moves of the task's prompts
    where they have the roles of `tasks.ioi`, which order it follows of days, months, numbers and
    letters. What cannot be asked of this model or task is left out, and `left_out` says why.
    Each type's null is in `nulls`. Where heads attend is also asked of copies of the model with its
    weights redrawn by `seed`, as many as `level` needs (19 for 0.05), on 8 prompts of each kind.
    `memory` is what the sweep for S-inhibition may hold.
    """
    _check(task, prompts, level)
    work = _Work(model, task, batch_size=batch_size, memory=memory, seed=seed)
    work.attention(prompts, period, level)
    work.weights()
    work.moving()
    work.successors()
    return work.result(prompts, level)


def _check(task: Task, prompts: int, level: float) -> None:
    if prompts < _FEWEST or len(task) < _FEWEST:
        few = f"{prompts} random prompts" if prompts < _FEWEST else f"{task.name} has one prompt"
        raise ValueError(f"{few}: bounds and tests need at least {_FEWEST}")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is no chance: take one between 0 and 1, such as 0.05")
    shortest = int(task.clean.lengths.min())
    if shortest < 4:
        raise ValueError(
            f"{task.name} has a prompt of {shortest} tokens: where heads look back to is seen in "
            "prompts of at least 4"
        )


@dataclass
class _Work:
    """Types as they are measured, and the reasons for those that are not."""

    model: Any
    task: Task
    batch_size: int
    memory: str | int
    seed: int
    heads: list[Head] = field(default_factory=list)
    found: list[Measured] = field(default_factory=list)
    natural: dict[str, Measured] = field(default_factory=dict)
    where: dict[str, Tensor] = field(default_factory=dict)
    redrawn: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def attention(self, prompts: int, period: tuple[int, int], level: float) -> None:
        """The types that are told by where a head attends."""
        drawn = tasks.induction(self.model, prompts=2 * prompts, seed=self.seed, period=period)
        shortest = min(int(one.lengths.min()) for one in (drawn.clean, self.task.clean))
        among = attending.options(shortest)
        some = [one for names in among.values() for one in names]
        # Offsets and positions are chosen on other prompts than they are judged on.
        chosen = attending.best(self._seen(drawn.clean[prompts:], some), among)
        judged_on = drawn.clean[:prompts]
        found = self._seen(judged_on, [*PLAIN, *some])
        natural = self._seen(self.task.clean, [*PLAIN, *some])
        self.heads = found.heads
        self.where = {
            type: torch.tensor([among[type][one] for one in relations])
            for type, relations in chosen.items()
        }
        every_one = found.on(found.held({*PLAIN, *(one for of in chosen.values() for one in of)}))
        named = attending.by_type(every_one, chosen)
        there = attending.by_type(natural, chosen)
        there = {name: pair for name, pair in there.items() if pair[0].shape[1] >= _FEWEST}
        first, second = chance.furthest(
            self.model,
            chance.Asked.of(judged_on, found, chosen, named),
            chance.Asked.of(self.task.clean, natural, chosen, there),
            among=among, count=chance.needed(level), batch_size=self.batch_size, seed=self.seed,
        )  # fmt: skip
        judged = attending.judged(named, seed=self.seed, together=True)
        self.found += chance.against(judged, first, together=True)
        judged = attending.judged(there, seed=self.seed, together=False)
        self.natural = {one.type: one for one in chance.against(judged, second, together=False)}
        self.redrawn = {name: float(far.max()) for name, far in first.items()}

    def weights(self) -> None:
        """The types that are told by what a head says of single tokens."""
        try:
            check_additive(self.model)
            self.found += copying.copying(self.model, seed=self.seed)[0]
        except ValueError as error:
            names = (copying.COPYING, copying.SUPPRESSING, copying.POSITIVE, copying.NEGATIVE)
            self.left_out |= dict.fromkeys(names, str(error))

    def moving(self) -> None:
        """The types that are told by names that move."""
        try:
            check_additive(self.model)
            moved = moving.moved(self.model, self.task, batch_size=self.batch_size, seed=self.seed)
            self.found += moving.movers(moved, seed=self.seed)
            self.found.append(
                moving.inhibition(self.model, self.task, moved, memory=self.memory, seed=self.seed)
            )
        except ValueError as error:
            names = (moving.MOVER, moving.NEGATIVE_MOVER, moving.INHIBITION)
            self.left_out |= dict.fromkeys(names, str(error))

    def successors(self) -> None:
        """The type that is told by orders."""
        try:
            check_additive(self.model)
            self.found.append(successors.successors(self.model, seed=self.seed)[0])
        except ValueError as error:
            self.left_out[successors.SUCCESSOR] = str(error)

    def result(self, prompts: int, level: float) -> HeadTypes:
        """All of it, as layers by heads."""

        def spread(values: Tensor) -> Tensor:
            return numbering.on_grid(self.model, values.float().cpu())

        def maps(name: str) -> Tensor:
            return torch.stack([spread(getattr(one, name)) for one in self.found])

        nothing = torch.full((len(self.heads),), torch.nan)
        natural = [self.natural.get(one.type) for one in self.found]
        return HeadTypes(
            **{name: maps(name) for name in ("effect", "low", "high", "p", "score", "null")},
            natural=torch.stack(
                [spread(nothing if one is None else one.effect) for one in natural]
            ),
            natural_p=torch.stack([spread(nothing if one is None else one.p) for one in natural]),
            offset=spread(self.where[OFFSET]).nan_to_num(-1).long(),
            position=spread(self.where[PLACE]).nan_to_num(-1).long(),
            threshold=torch.tensor([one.threshold for one in self.found]),
            redrawn=torch.tensor([self.redrawn.get(one.type, torch.nan) for one in self.found]),
            types=[one.type for one in self.found],
            measured_in=[one.unit for one in self.found],
            nulls=[one.null_is for one in self.found],
            **self._example(level),
            left_out=self.left_out,
            prompts=prompts,
            level=level,
            task=self.task.name,
            task_digest=self.task.digest,
            caveat=self._caveat(),
            **of_model(self.model),
        )

    def _example(self, level: float) -> dict[str, Any]:
        """The first prompt, and what the strongest heads of each type attend to in it."""
        shown: list[Head] = []
        for one in self.found:
            order = one.effect.nan_to_num(-torch.inf).argsort(descending=True, stable=True)
            named = one.named(level=level)
            best = [at for at in order.tolist() if bool(named[at])][:_SHOWN] or order[:1].tolist()
            shown += [self.heads[at] for at in best]
        shown = sorted(set(shown))
        seen = looks(self.model, self.task.clean[0], shown)
        return {"pattern": seen.pattern, "shown": shown, "words": seen.words}

    def _seen(self, prompts: Prompts, names: list[str]) -> attending.Attention:
        return attending.attention(self.model, prompts, names, batch_size=self.batch_size)

    def _caveat(self) -> str:
        found = solved(self.model, self.task)
        if found.is_solved:
            return ""
        return f"Caveat: {found.sentence()} What heads move there may be noise."
