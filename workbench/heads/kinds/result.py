"""What kind of head each one is, as a result."""

from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.heads.kinds.attending import EVERYWHERE
from workbench.heads.naming import Head
from workbench.heads.ranking import in_order
from workbench.results import Result


@dataclass(frozen=True, eq=False)
class HeadTypes(Result):
    """How far each head's score of each type is beyond chance. Positive: more of that type.

    `effect` is the score less its null, in the type's own unit. `p` is corrected for testing every
    head (and, for types of attention, every such type). Of attention it is the larger of two:
    sign flips over prompts of the effect beyond shuffled rows, and (1 + copies of which any head
    goes as far) / (1 + copies) for copies of the model with its weights redrawn, which never
    falls below `level`; `redrawn` is how far the best head of all of them goes. A head is of a
    type when p is at most `level` and the effect at least the type's `threshold`; where it looks
    back by itself (previous token, first token, fixed offset or position) also on the natural
    prompts. NaN: could not be measured here, `left_out` says why; in all types: a head that was
    removed from the model. `pattern` is what the strongest heads of each type attend to in the
    task's first prompt, to be looked at.
    """

    effect: Float[Tensor, "type layer head"] = field(metadata={"means": "score beyond chance"})
    low: Float[Tensor, "type layer head"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, "type layer head"] = field(metadata={"means": "upper 95 % bound of effect"})
    p: Float[Tensor, "type layer head"] = field(metadata={"means": "p-value, corrected"})
    score: Float[Tensor, "type layer head"] = field(metadata={"means": "score"})
    null: Float[Tensor, "type layer head"] = field(metadata={"means": "score by chance"})
    natural: Float[Tensor, "type layer head"] = field(
        metadata={"means": "effect on natural prompts"}
    )
    natural_p: Float[Tensor, "type layer head"] = field(
        metadata={"means": "p-value on natural prompts, corrected for all heads"}
    )
    offset: Int[Tensor, "layer head"] = field(
        metadata={"means": "tokens back, of the type fixed offset"}
    )
    position: Int[Tensor, "layer head"] = field(
        metadata={"means": "the position, counted from 0, of the type fixed position"}
    )
    threshold: Float[Tensor, " type"] = field(metadata={"means": "least effect that is named"})
    redrawn: Float[Tensor, " type"] = field(
        metadata={"means": "largest effect of any head of the copies with redrawn weights"}
    )
    types: list[str] = field(metadata={"axis": "type"})
    measured_in: list[str] = field(metadata={"axis": "type"})
    nulls: list[str] = field(metadata={"axis": "type"})
    pattern: Float[Tensor, "shown query key"] = field(
        metadata={"means": "attention of some of the heads in one prompt of the task"}
    )
    shown: list[Head]
    words: list[str] = field(metadata={"axis": "key"})
    left_out: dict[str, str]
    prompts: int
    level: float
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def gone(self) -> Bool[Tensor, "layer head"]:
        """Which heads were removed from the model."""
        return self.effect.isnan().all(dim=0)

    def of(self, type: str) -> list[Head]:
        """The heads of one type, strongest first."""
        if type not in self.types:
            why = self.left_out.get(type)
            known = ", ".join(self.types)
            raise ValueError(
                f"{type} was not measured: {why}" if why else f"no type {type!r}; there are {known}"
            )
        at = self.types.index(type)
        named = (self.p[at] <= self.level) & (self.effect[at] >= self.threshold[at])
        if type in EVERYWHERE and not self.natural[at].isnan().all():
            named &= (self.natural_p[at] <= self.level) & (self.natural[at] >= self.threshold[at])
        heads = [(int(layer), int(head)) for layer, head in named.nonzero().tolist()]
        return sorted(heads, key=lambda head: -float(self.effect[at][head]))

    def named(self) -> dict[str, list[Head]]:
        """The heads of every type, strongest first; a head may be of several."""
        return {type: self.of(type) for type in self.types}

    def types_of(self, head: Head) -> list[str]:
        """The types of one head."""
        layers, width = self.effect.shape[1:]
        layer, number = head
        if not (0 <= layer < layers and 0 <= number < width):
            raise ValueError(
                f"{self.model} has no head {layer}.{number}: layers are 0 to {layers - 1}, heads "
                f"0 to {width - 1}"
            )
        if bool(self.gone[head]):
            raise ValueError(f"head {layer}.{number} was removed from {self.model}: it has no type")
        return [type for type, heads in self.named().items() if head in heads]

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        named = self.named()
        found = [f"{type} {_listed(heads)}" for type, heads in named.items() if heads]
        none = [type for type, heads in named.items() if not heads]
        text = f"Heads of {self.model} (corrected p ≤ {self.level:g} and large enough): "
        text += ("; ".join(found) or "none of any type") + "."
        if none and found:
            text += f" None: {', '.join(none)}."
        if self.left_out:
            text += f" Not measured: {', '.join(self.left_out)}."
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, int]:
        """How many heads there are of each type."""
        return {type: len(heads) for type, heads in self.named().items()}

    def table(self, n: int = 5) -> str:
        """The `n` strongest heads of each type as text, one a line; a star marks the named."""
        lines = [f"{'type':<22}{'head':<8}{'effect':<10}{'95 % bounds':<20}p (corrected)"]
        for at, type in enumerate(self.types):
            named = self.of(type)
            for head in in_order(self.effect[at])[:n]:
                values = (field[at][head] for field in (self.effect, self.low, self.high, self.p))
                effect, low, high, p = map(float, values)
                bounds = f"[{low:+.3f}, {high:+.3f}]" if low == low else "of weights: none"
                mark = " *" if head in named else ""
                name = f"{head[0]}.{head[1]}"
                lines.append(f"{type:<22}{name:<8}{f'{effect:+.3f}':<10}{bounds:<20}{p:.4f}{mark}")
        return "\n".join(lines)


def _listed(heads: list[Head], most: int = 6) -> str:
    shown = ", ".join(f"{layer}.{head}" for layer, head in heads[:most])
    return shown + (f" and {len(heads) - most} more" if len(heads) > most else "")
