"""Questions that take more than one kind of analysis: their results side by side, as one.

Measures nothing itself. Every part is a result of the room that found it.
"""

from dataclasses import dataclass
from typing import Any

from hooks import HookedModel
from workbench import heads, patching
from workbench.heads import Backups, Head
from workbench.heads.naming import every, named
from workbench.metrics import Metric
from workbench.patching import PathEffects, Running, Sweeps
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import of_task


@dataclass(frozen=True, eq=False)
class AnswerHeads(Result):
    """What heads do for an answer: by any way, by what they write, and without the main writers.

    carries      what exchanging a head's output between the two prompts of a pair changes, by any
                 way (denoise: positive restores the answer; noise: negative breaks it)
    writes       what of that reaches the logits by no other head (noise: negative, it writes for
                 the answer)
    takes_over   what heads cost once the strongest writers are gone, beyond what they cost alone
                 (negative: it takes over), on other prompts than those of `carries` and `writes`

    A head that carries and does not write tells other heads what to write. What heads write can
    cost less by any way than by their own words: then others make up for it.
    """

    carries: Sweeps
    writes: PathEffects
    takes_over: Backups
    model: str
    model_digest: str
    task: str
    task_digest: str
    caveat: str = ""

    def movers(self) -> list[Head]:
        """The strongest writers, which were removed to see who takes over."""
        return self.takes_over.of

    def backups(self) -> list[Head]:
        """The heads that take over by helping: with the others gone the answer is worse without.

        The upper bound of what they cost then is below 0.
        """
        helps = dict(zip(self.takes_over.heads, self.takes_over.then_high.tolist(), strict=True))
        return [head for head in self.takes_over.found() if helps[head] < 0]

    def relenting(self) -> list[Head]:
        """The heads that take over without being shown to help.

        Where they cost more than 0 alone, they worked against the answer, and do so less.
        """
        return [head for head in self.takes_over.found() if head not in self.backups()]

    def sentence(self) -> str:
        """What was found, a line for each of the parts, and what those that take over do."""
        parts = (self.carries, self.writes, self.takes_over)
        lines = [part.sentence().removesuffix(part.caveat).strip() for part in parts]
        helping, relenting = self.backups(), self.relenting()
        if helping:
            lines.append(f"Taking over by helping the answer: {self._costs(helping)}.")
        if relenting:
            lines.append(f"Taking over, not shown to help: {self._costs(relenting)}.")
        return "\n".join([*lines, self.caveat]).strip()

    def headline(self) -> dict[str, Any]:
        """How many heads write for the answer, which were removed, and who helps and relents."""
        for_it = [head for head in self.writes.significant() if self.writes.effect[head] < 0]
        return {
            "writers": len(for_it), "removed": _listed(self.movers()),
            "backups": _listed(self.backups()), "relenting": _listed(self.relenting()),
        }  # fmt: skip

    def table(self, n: int = 8) -> str:
        """The strongest by any way, the strongest writers, and each step of the search."""
        search = self.takes_over
        lines = [f"{'head':<8}{'alone':>8}{'then':>8}  {'95 % bounds':<18}growth  p"]
        columns = (search.alone, search.then, search.then_low, search.then_high, search.growth)
        rows = zip(search.heads, *(one.tolist() for one in columns), search.p.tolist(), strict=True)
        for head, alone, then, low, high, growth, p in rows:
            bounds = f"[{low:+.2f}, {high:+.2f}]"
            mark = " *" if head in search.found() else ""
            lines.append(
                f"{named(head):<8}{alone:>+8.2f}{then:>+8.2f}  {bounds:<18}{growth:+.2f}  "
                f"{p:.4f}{mark}"
            )
        return "\n".join([
            "by any way", self.carries.table(n), "", "by its own words", self.writes.table(n), "",
            f"once {named(*self.movers())} and those above are gone ({search.unit}; * takes over)",
            *lines,
        ])  # fmt: skip

    def _costs(self, some: list[Head]) -> str:
        """Heads with what they cost alone and with the others gone."""
        search = self.takes_over
        at = [search.heads.index(head) for head in some]
        said = [
            f"{named(search.heads[k])} ({float(search.alone[k]):+.2f} {search.unit} alone, "
            f"{float(search.then[k]):+.2f} then)"
            for k in at
        ]
        return ", ".join(said)


def answer_heads(
    model: HookedModel,
    task: Task,
    *,
    search: Task,
    metric: Metric,
    movers: int = 3,
    steps: int = 5,
    ablation: heads.Ablation = "mean",
    seed: int = 0,
) -> AnswerHeads:
    """Which heads carry the answer, which of them write it, and who takes over without those.

    On `task` every head is patched in both directions, and to the logits alone. The `movers` that
    write most for the answer there are removed on the prompts of `search`, which are others: half
    of them choose, step by step and up to `steps`, the head that takes over most, half judge.
    Searched are all heads from the first mover's layer on.
    """
    _check_apart(task, search)
    running = Running(seed=seed)
    carries = patching.sweeps(model, task, "z", metrics=[metric], over="head", running=running)
    writes = patching.paths(model, task, to="logits", metric=metric, running=running)
    gone = [head for head in writes.most_helpful(movers) if writes.effect[head] < 0]
    if not gone:
        raise ValueError(
            f"{movers} writers were asked for, and no head writes for the answer of {task.name}: "
            "is this the task's model, and is the answer not exchanged with the foil?"
        )
    first = min(layer for layer, _ in gone)
    among = [head for head in every(model) if head[0] >= first and head not in gone]
    takes_over = heads.backups(
        model, search, gone, metric=metric, ablation=ablation, among=among, most=steps, seed=seed
    )
    return AnswerHeads(carries, writes, takes_over, caveat=writes.caveat, **of_task(model, task))


def _check_apart(task: Task, search: Task) -> None:
    """Raise where a prompt is in both."""
    one, other = (
        {tuple(row[:n]) for row, n in zip(
            some.clean.tokens.tolist(), some.clean.lengths.tolist(), strict=True
        )}
        for some in (task, search)
    )  # fmt: skip
    if one & other:
        raise ValueError(
            f"{len(one & other)} of the {len(search)} prompts of the search are also among those "
            f"that name the writers: split one task, task[:{len(task)}] and task[{len(task)}:]"
        )


def _listed(some: list[Head]) -> str:
    return " ".join(map(named, some)) or "none"
