"""Why measures of a head's importance disagree: what each of them cannot see."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from workbench.heads.ranking import Kind

MUCH = 0.05
"""A head matters by a measure when it has at least this share of the largest score."""


@dataclass(frozen=True)
class Reading:
    """What one measure says of one head; `share` is of the largest score of any head."""

    kind: Kind
    score: float
    share: float


def reasons(readings: Sequence[Reading]) -> list[str]:
    """What the readings of one head say when they are held against each other; may be nothing.

    Scores in the metric's unit are compared as they are, others by their share of the largest.
    """
    by_kind: dict[Kind, Reading] = {}
    for one in readings:
        by_kind.setdefault(one.kind, one)
    found = [*_alone(by_kind), *_slopes(by_kind), *_gates(by_kind)]
    alone = [one.share for one in readings if one.kind == "alone"]
    if len(alone) > 1 and max(alone) - min(alone) >= 0.5:
        found.append("what stands in its place matters")
    signs = [one.share for one in readings if one.kind not in ("slope", "gates")]
    if signs and max(signs) >= MUCH and min(signs) <= -MUCH:
        found.append("signs differ")
    return found


def _alone(by_kind: Mapping[Kind, Reading]) -> Iterator[str]:
    """A head's loss against its share of what a set does."""
    alone, among = by_kind.get("alone"), by_kind.get("set")
    if alone is None or among is None:
        return
    if among.share >= MUCH and alone.score <= among.score / 2:
        yield "costs little alone, much in a set"
    if alone.share >= MUCH and among.score <= alone.score / 1.5:
        yield "needed by others: costs more alone than its share"


def _slopes(by_kind: Mapping[Kind, Reading]) -> Iterator[str]:
    """A small step against a whole one."""
    slope, signed = by_kind.get("slope"), by_kind.get("signed slope")
    alone = by_kind.get("alone")
    whole = [one for kind in ("alone", "set") if (one := by_kind.get(kind))]
    if slope is None:
        return
    if any(one.share >= MUCH and slope.score <= one.score / 4 for one in whole):
        yield "saturated: its slope is near zero"
    if alone is not None and slope.share >= MUCH and abs(alone.score) <= slope.score / 4:
        yield "its slope is steep, its loss is made up for"
    if signed is not None and slope.share >= MUCH and abs(signed.score) <= slope.score / 3:
        yield "helps some prompts, hurts others"


def _gates(by_kind: Mapping[Kind, Reading]) -> Iterator[str]:
    """What learning keeps against what ablation costs."""
    gates, alone, among = (by_kind.get(kind) for kind in ("gates", "alone", "set"))
    matters = any(one is not None and one.share >= MUCH for one in (alone, among))
    if gates is not None and gates.score < 0.5 and matters:
        yield "learned gates do without it"
    if gates is not None and gates.score >= 0.5 and alone is not None and alone.share < MUCH:
        yield "learned gates keep it, though alone it costs little"
