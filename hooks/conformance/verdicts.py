"""What was checked, what was measured, and what it means."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "fail", "refused"]

GROUPS = (
    "streams", "parity", "fires once", "identity edits", "live edits", "cuts", "residual",
    "heads", "attention", "causality", "padding", "gradients", "inventory",
)  # fmt: skip
"""The questions, in the order in which they are asked."""


@dataclass(frozen=True)
class Check:
    """One promise, and whether this model keeps it.

    measured   the largest error (0 is exact); None where nothing was run
    expected   what would have passed; for a refusal, why
    where      the site at which `measured` was found
    """

    group: str
    name: str
    verdict: Verdict
    measured: float | None
    expected: str
    where: str = ""

    def __str__(self) -> str:
        measured = "" if self.measured is None else f"{self.measured:.1e}"
        place = f" at {self.where}" if self.where and self.verdict == "fail" else ""
        return (
            f"{self.verdict:<8}{self.group:<16}{self.name:<28}{measured:>8}  {self.expected}{place}"
        )


@dataclass(frozen=True)
class Conformance:
    """What one model promises and keeps. Refusals are kept promises: they say what it has not."""

    model: str
    architecture: str
    layers: str  # which layers the slower checks ran on
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The promises that this model does not keep."""
        return tuple(check for check in self.checks if check.verdict == "fail")

    @property
    def refusals(self) -> dict[str, str]:
        """What this model has not, and why."""
        return {f"{c.group}: {c.name}": c.expected for c in self.checks if c.verdict == "refused"}

    def verdict(self, group: str) -> Verdict:
        """ "fail" if any check of `group` failed, "refused" if any was refused, else "pass"."""
        found = {check.verdict for check in self.of(group)}
        return next(v for v in ("fail", "refused", "pass") if v in found)

    def of(self, group: str) -> tuple[Check, ...]:
        """The checks of one group."""
        found = tuple(check for check in self.checks if check.group == group)
        if not found:
            have = dict.fromkeys(check.group for check in self.checks)
            raise KeyError(f"no checks of {group!r}; there are {', '.join(have)}")
        return found

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        number = len(self.failures)
        outcome = "passed" if self.passed else f"{number} of {len(self.checks)} checks FAILED"
        yield f"{self.model} ({self.architecture}), {self.layers}: {outcome}"
        yield from map(str, self.checks)


def judged(group: str, name: str, error: float, *, limit: float, where: object = "") -> Check:
    """A check that passes when `error` is at most `limit`; NaN fails."""
    expected = "exactly 0" if limit == 0 else f"at most {limit:.0e} of the largest value"
    return Check(group, name, "pass" if error <= limit else "fail", error, expected, str(where))


def worst(group: str, name: str, errors: dict[str, float], *, limit: float, nothing: str) -> Check:
    """The largest of several errors, with the place where it was; refused when there is none."""
    if not errors:
        return Check(group, name, "refused", None, nothing)
    # NaN is no number to be compared, and worse than any.
    where = max(errors, key=lambda place: (errors[place] != errors[place], errors[place]))
    return judged(group, name, errors[where], limit=limit, where=where)
