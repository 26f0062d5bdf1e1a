"""Which heads to ablate together: by what they cost alone, and by what they are or resemble."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.heads.naming import Head, named


@dataclass(frozen=True)
class Candidates:
    """Heads worth ablating together, each with the reason it was chosen for."""

    heads: list[Head]
    reasons: list[str]

    def __str__(self) -> str:
        return "\n".join(
            f"{named(head):<7} {reason}"
            for head, reason in zip(self.heads, self.reasons, strict=True)
        )


def candidates(
    important: Sequence[Head],
    *,
    n: int,
    alike: Mapping[str, Sequence[Head]] | None = None,
    similarity: Float[Tensor, "head other"] | None = None,
    of: Sequence[Head] | None = None,
    partners: int = 1,
) -> Candidates:
    """The first `n` of `important`; heads of the same kinds; and those most similar to them.

    Heads that are perfectly backed up cost nothing alone, so importance cannot find them: give
    at least one of `alike` and `similarity` too.

    important    heads in order, the most important first
    alike        what heads are -> those heads, such as "induction" -> [(5, 1), (7, 4)]; all of
                 them are taken
    similarity   how alike any two heads of `of` are, higher is more; for each important head
                 its `partners` most similar ones are taken
    """
    if n < 1 or n > len(important):
        raise ValueError(f"{n} of {len(important)} important heads: ask for 1 to {len(important)}")
    chosen = dict.fromkeys(important[:n], "costs most alone")
    for kind, some in (alike or {}).items():
        for head in some:
            chosen.setdefault(head, kind)
    if similarity is not None:
        order = _order(similarity, of)
        for head in important[:n]:
            for partner in _nearest(similarity, order, head, partners):
                chosen.setdefault(partner, f"most similar to {named(head)}")
    return Candidates(list(chosen), list(chosen.values()))


def _order(similarity: Tensor, of: Sequence[Head] | None) -> list[Head]:
    if of is None or similarity.shape != (len(of), len(of)):
        raise ValueError(
            f"a similarity of {tuple(similarity.shape)} for {0 if of is None else len(of)} heads: "
            "say with of=[...] which head each row and column is"
        )
    return list(of)


def _nearest(
    similarity: Float[Tensor, "head other"], order: list[Head], head: Head, count: int
) -> list[Head]:
    """The heads most similar to `head`, itself left out; none where it has no row."""
    if head not in order:
        return []
    row = similarity[order.index(head)].double().clone()
    row[order.index(head)] = -torch.inf
    row = row.nan_to_num(nan=-torch.inf)
    nearest = row.argsort(descending=True, stable=True)[:count].tolist()
    return [order[at] for at in nearest if row[at] > -torch.inf]
