"""Logits to one number per prompt. Higher is always better.

A metric is a frozen value that says which rows and columns of the logits it reads, so that
nothing else has to be computed. All are differences or logarithms of probabilities, so they
do not depend on how a model was loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Prompts
from hooks.choices import check_choice
from workbench.tasks import Task
from workbench.tasks.task import logit_difference, summed

Rows = Literal["last", "all"]
Columns = Literal["answer", "all"]


@dataclass(frozen=True, eq=False)
class Metric:
    """A name, a unit, and a function from logits and task to one number per prompt.

    `metric(logits, task)` takes the logits of all positions, or of the last ones alone
    (batch, 1, vocab) where `rows` is "last".
    """

    name: str
    unit: str
    rows: Rows
    columns: Columns
    function: Callable[[Tensor, Task, Prompts], Tensor]
    reference: Float[Tensor, "batch vocab"] | None = None

    # With __getitem__ alone Python would take it for a sequence, one without an end.
    __iter__ = None

    def __post_init__(self) -> None:
        check_choice("rows", self.rows, Rows)
        check_choice("columns", self.columns, Columns)

    def __call__(
        self, logits: Float[Tensor, "batch pos vocab"], task: Task, prompts: Prompts | None = None
    ) -> Float[Tensor, " batch"]:
        """One number per prompt; `prompts` are the task's clean ones unless others are given."""
        prompts = (task.clean if prompts is None else prompts).to(logits.device)
        self._check(logits, prompts)
        if self.rows == "last":
            logits = _last(logits, prompts)
        found = self.function(logits, task, prompts)
        given = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)[:60]
        if not isinstance(found, Tensor) or found.shape != (len(prompts),):
            raise ValueError(
                f"metric {self.name} returned {given}; it must return one number for each of "
                f"{len(prompts)} prompts, as a tensor"
            )
        if not bool(torch.isfinite(found).all()):
            row = int((~torch.isfinite(found)).nonzero()[0])
            raise FloatingPointError(f"metric {self.name} is NaN or Inf for prompt {row}")
        return found

    def _check(self, logits: Tensor, prompts: Prompts) -> None:
        """Raise where logits or reference are those of other prompts; they might broadcast."""
        count, width = prompts.tokens.shape
        if logits.shape[0] != count:
            raise ValueError(f"{logits.shape[0]} rows of logits for {count} prompts")
        if logits.shape[1] != width and (logits.shape[1] != 1 or self.rows == "all"):
            raise ValueError(
                f"metric {self.name} needs the logits of all {width} positions"
                f"{' or of the last ones' if self.rows == 'last' else ''}, got {logits.shape[1]}"
            )
        if self.reference is not None and len(self.reference) != count:
            raise ValueError(
                f"{self.name} has a reference of {len(self.reference)} prompts for {count}: "
                "choose the same rows of both, metric[rows] and task[rows]"
            )

    def __getitem__(self, rows: slice | Int[Tensor, " chosen"]) -> "Metric":
        """The metric for some of the prompts."""
        return self if self.reference is None else minus_kl(self.reference[rows])

    def __str__(self) -> str:
        return f"{self.name} ({self.unit})"


def check(metric: object) -> None:
    """Raise for what is no metric, such as a bare function or a list of metrics."""
    if not isinstance(metric, Metric):
        raise TypeError(
            f"metric={_shown(metric)} is no metric: give one, such as metrics.logit_diff, or put a "
            'function of your own into metrics.Metric("name", "unit", "last", "all", function)'
        )


def check_all(metrics: Sequence[Metric]) -> None:
    """Raise unless these are metrics in a list, at least one."""
    if isinstance(metrics, Metric) or not isinstance(metrics, Sequence) or isinstance(metrics, str):
        raise TypeError(f"metrics={_shown(metrics)}: give a list: metrics=[...]")
    if not metrics:
        raise ValueError("no metric was given: name at least one, such as metrics.logit_diff")
    for metric in metrics:
        check(metric)


def _shown(given: object) -> str:
    if isinstance(given, list | tuple):
        return f"[{', '.join(map(_shown, given))}]"
    return repr(given)[:60] if isinstance(given, str) else str(given)[:60]


def _last(logits: Float[Tensor, "batch pos vocab"], prompts: Prompts) -> Tensor:
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(prompts), device=logits.device), prompts.last]


def _accuracy(logits: Tensor, task: Task, prompts: Prompts) -> Tensor:
    difference = logit_difference(logits, task)
    return (difference > 0).to(logits.dtype) + 0.5 * (difference == 0).to(logits.dtype)


def _answer_logprob(logits: Tensor, task: Task, prompts: Prompts) -> Tensor:
    return summed(logits.log_softmax(dim=-1), task.answer)


def _mean_logprob(logits: Tensor, task: Task, prompts: Prompts) -> Tensor:
    if prompts.tokens.shape[1] < 2 or bool((prompts.lengths < 2).any()):
        raise ValueError("mean_logprob needs prompts of at least two tokens")
    following = rearrange(prompts.tokens[:, 1:], "batch pos -> batch pos 1")
    per_token = logits[:, :-1].log_softmax(dim=-1).gather(2, following)
    real = prompts.mask[:, 1:].to(logits.dtype)
    return (rearrange(per_token, "batch pos 1 -> batch pos") * real).sum(1) / real.sum(1)


logit_diff = Metric(
    "logit_diff", "nats", "last", "answer", lambda logits, task, _: logit_difference(logits, task)
)
"""logit(answer) - logit(foil) at the last position; 0 means that both are equally likely."""

answer_logprob = Metric("answer_logprob", "nats", "last", "all", _answer_logprob)
"""log p(answer) at the last position."""

answer_prob = Metric(
    "answer_prob", "probability", "last", "all",
    lambda logits, task, prompts: _answer_logprob(logits, task, prompts).exp(),
)  # fmt: skip
"""p(answer) at the last position."""

accuracy = Metric("accuracy", "fraction", "last", "answer", _accuracy)
"""1 where the answer is likelier than the foil, 0 where it is not, 1/2 on a tie."""

mean_logprob = Metric("mean_logprob", "nats per token", "all", "all", _mean_logprob)
"""Mean log-probability of the prompt's own tokens from the second on: minus the usual loss."""


def minus_kl(reference: Float[Tensor, "batch vocab"]) -> Metric:
    """-KL(reference || model) at the last position, in nats; 0 is best.

    `reference` are the last logits of the run to compare with, one row per prompt. Its
    gradient is zero where both agree, so it cannot be attributed at the clean run.
    """
    if reference.ndim != 2:
        raise ValueError(
            f"a reference has the shape (batch, vocab), got {tuple(reference.shape)}: "
            "take the last position's, last_logits(model, prompts)[:, 0]"
        )
    logprobs = reference.detach().log_softmax(dim=-1)

    def function(logits: Tensor, task: Task, prompts: Prompts) -> Tensor:
        return (logprobs.exp() * (logits.log_softmax(dim=-1) - logprobs)).sum(dim=-1)

    plain = Metric("minus_kl", "nats", "last", "all", function)
    return replace(plain, reference=reference)
