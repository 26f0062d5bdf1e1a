"""What every neuron did on a corpus, as one result.

Dead and positional neurons are those of Voita et al. (2023), who look at ReLUs: dead is what is
never above 0, positional what shares information with position. Activations here have signs: dead
is what stays near 0, positional is a share of variance. Sparsity is one less the sparseness of
Treves & Rolls (1991). First tokens are apart for their massive activations (Sun et al. 2024).
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from hooks.choices import check_choice
from workbench.corpora import Corpus
from workbench.neurons import counts
from workbench.neurons.extremes import NONE
from workbench.neurons.naming import End, Neuron, in_order
from workbench.results import Result

SILENT = 0.01
"""A neuron is dead whose largest activation is below this share of its layer's root mean square."""

POSITIONAL = 0.5
"""A neuron is positional when its position explains at least this share of its variance."""

OUTLYING = 6.0
"""A neuron is outlying at first tokens when it is this many times larger there than ordinarily."""

FEW = 0.001
"""The share of tokens that may go beyond what is ordinary for a neuron."""

EXTREME = 50.0
"""A neuron is extreme that reaches so many of its standard deviations, first tokens left out."""


@dataclass(frozen=True, eq=False)
class Activity(Result):
    """What each neuron did on running text: how often, how strongly, where. No effect on anything.

    Numbers are over all tokens but the first of each row, which attention sinks make unlike all
    others; those are in `first_mean`, `first_size` and `first_largest`. They do not depend on how
    the corpus was batched. `stream` says what was counted; for gated MLPs "neuron" is the product
    that enters W_down, "neuron_pre" its gate and "neuron_up" the other factor.
    """

    mean: Float64[Tensor, "layer neuron"] = field(metadata={"means": "mean activation"})
    deviation: Float64[Tensor, "layer neuron"] = field(metadata={"means": "standard deviation"})
    skewness: Float64[Tensor, "layer neuron"] = field(
        metadata={"means": "third standardised moment; NaN if constant"}
    )
    kurtosis: Float64[Tensor, "layer neuron"] = field(
        metadata={"means": "fourth standardised moment; normal is 3"}
    )
    size: Float64[Tensor, "layer neuron"] = field(metadata={"means": "mean absolute activation"})
    positive: Float64[Tensor, "layer neuron"] = field(
        metadata={"means": "share of tokens with an activation above 0"}
    )
    sparsity: Float64[Tensor, "layer neuron"] = field(
        metadata={"means": "1 - (mean |a|)^2 / mean a^2: 0 is always as strong, near 1 is rare"}
    )
    positional: Float64[Tensor, "layer neuron"] = field(
        metadata={"means": "share of variance explained by position"}
    )
    by_span: Float64[Tensor, "layer neuron span"] = field(
        metadata={"means": "mean at positions 1, 2-3, 4-7, ..."}
    )
    first_mean: Float64[Tensor, "layer neuron"] = field(
        metadata={"means": "mean at the first tokens of rows"}
    )
    first_size: Float64[Tensor, "layer neuron"] = field(
        metadata={"means": "root mean square at first tokens"}
    )
    first_largest: Float64[Tensor, "layer neuron"] = field(
        metadata={"means": "largest size at a first token"}
    )
    histogram: Int[Tensor, "layer neuron bin"] = field(metadata={"means": "tokens in each bin"})
    reach: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "the bins go from minus to plus this"}
    )
    top: Float[Tensor, "layer neuron rank"] = field(
        metadata={"means": "largest activations, of distinct units"}
    )
    top_row: Int[Tensor, "layer neuron rank"] = field(
        metadata={"means": "the corpus's row; -1: there is none"}
    )
    top_position: Int[Tensor, "layer neuron rank"] = field(
        metadata={"means": "the position in that row"}
    )
    bottom: Float[Tensor, "layer neuron rank"] = field(
        metadata={"means": "smallest activations, of distinct units"}
    )
    bottom_row: Int[Tensor, "layer neuron rank"] = field(
        metadata={"means": "the corpus's row; -1: there is none"}
    )
    bottom_position: Int[Tensor, "layer neuron rank"] = field(
        metadata={"means": "the position in that row"}
    )
    tokens: int
    apart: str
    stream: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    @property
    def largest(self) -> Float[Tensor, "layer neuron"]:
        """The largest size that each neuron reached on any token but first ones."""
        return torch.maximum(self.top[..., 0].abs(), self.bottom[..., 0].abs())

    @property
    def dead(self) -> list[Neuron]:
        """The neurons that stayed below 1 % of their layer's root mean square on all the text."""
        square = (self.deviation**2 + self.mean**2).mean(dim=1, keepdim=True)
        still = (self.largest <= SILENT * square.sqrt()).double()
        return [one for one in in_order(still) if still[one] > 0]

    @property
    def ordinary(self) -> Float64[Tensor, "layer neuron"]:
        """The size that at most 1 in 1,000 tokens go beyond, first ones left out.

        An upper bound, to the width of a bin; the largest size where there are fewer tokens.
        """
        half = counts.BINS // 2
        folded = self.histogram[..., half:] + self.histogram[..., :half].flip(-1)
        beyond = folded.flip(-1).cumsum(-1).flip(-1)  # how many lie above each edge from 0 on
        rare = beyond <= FEW * self.tokens
        edge = self.reach.double() * rare.int().argmax(-1) / half
        return torch.where(rare.any(-1), edge, torch.inf).minimum(self.largest.double())

    @property
    def outlying_first(self) -> list[Neuron]:
        """The neurons that are far larger at first tokens than ordinarily, strongest first.

        At least 6 times in root mean square. Not the largest size elsewhere is compared but what
        999 of 1,000 other tokens stay within: the model takes a few other tokens for first ones
        (a line break early in a row), and one of them in a long text would hide all these neurons.
        """
        ratio = self._first_over_ordinary
        return [one for one in in_order(ratio) if ratio[one] >= OUTLYING]

    @property
    def _first_over_ordinary(self) -> Float64[Tensor, "layer neuron"]:
        return self.first_size / self.ordinary.clamp(min=1e-30)

    @property
    def extreme(self) -> list[Neuron]:
        """The neurons that a few tokens drive far beyond all others, furthest first."""
        reached = self.largest.double() / self.deviation.clamp(min=1e-30)
        dead = set(self.dead)
        return [one for one in in_order(reached) if reached[one] >= EXTREME and one not in dead]

    def most_positional(self, n: int | None = None) -> list[Neuron]:
        """The neurons whose activation is mostly a matter of position, strongest first."""
        return [one for one in in_order(self.positional, n) if self.positional[one] >= POSITIONAL]

    def sparsest(self, n: int | None = None) -> list[Neuron]:
        """Neurons from the one that fires most rarely, dead ones left out."""
        dead = set(self.dead)
        return [one for one in in_order(self.sparsity) if one not in dead][:n]

    def edges(self, neuron: tuple[int, int]) -> Float[Tensor, " edge"]:
        """The edges of a neuron's bins, which hold what lies above one edge up to the next."""
        return counts.edges(self.reach[neuron])

    def examples(
        self,
        model: Any,
        corpus: Corpus,
        neuron: tuple[int, int],
        *,
        around: int = 8,
        n: int = 10,
        end: End = "top",
    ) -> list[str]:
        """The largest (or smallest) activations as text, the token in «»: what is `around` it."""
        self.check(corpus)
        check_choice("end", end, End)
        value, rows, places = (
            getattr(self, f"{end}{what}")[neuron] for what in ("", "_row", "_position")
        )
        lines = []
        for rank in range(min(n, len(value))):
            row, at = int(rows[rank]), int(places[rank])
            if row == NONE:
                break
            words = corpus.words(model, row)
            before, after = words[max(0, at - around) : at], words[at + 1 : at + 1 + around]
            text = "".join([*before, "«", words[at], "»", *after]).replace("\n", " ")
            where = corpus.documents[int(corpus.document[row])]
            lines.append(f"{float(value[rank]):+8.3f}  {text}  ({where}, row {row})")
        return lines

    def check(self, corpus: Corpus) -> None:
        """Raise where rows and positions are not those of this corpus."""
        if corpus.digest != self.task_digest:
            raise ValueError(f"this is about {self.task}, not about {corpus}")

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        layers, width = self.mean.shape
        dead, first = self.dead, self.outlying_first
        text = (
            f"Of {layers * width:,} neurons of {self.model}, {len(dead):,} are dead on "
            f"{self.task}, {len(self.most_positional()):,} are positional, and {len(first):,} are "
            f"at least {OUTLYING:g} times larger at first tokens than at 999 of 1,000 others. On "
            f"average {float(self.positive.mean()):.0%} of activations are above 0; sparsity "
            f"{float(self.sparsity.nanmean()):.2f}."
        )
        if first:
            ratio = float(self._first_over_ordinary[first[0]])
            text += f" Most of all {first[0]} ({ratio:,.0f} times)."
        if extreme := self.extreme:
            one = extreme[0]
            text += (
                f" {len(extreme):,} reach {EXTREME:g} standard deviations at other tokens, "
                f"most of all {one} ({float(self.largest[one] / self.deviation[one]):.0f})."
            )
        return text

    def headline(self) -> dict[str, float]:
        """How many neurons are dead, positional and outlying, and how sparse they are."""
        return {
            "dead": float(len(self.dead)),
            "positional": float(len(self.most_positional())),
            "outlying_first": float(len(self.outlying_first)),
            "extreme": float(len(self.extreme)),
            "positive": float(self.positive.mean()),
            "sparsity": float(self.sparsity.nanmean()),
        }

    def table(self, n: int = 15) -> str:
        """The sparsest neurons as text, one a line."""
        lines = [f"{'neuron':<10}{'mean':>9}{'deviation':>11}{'> 0':>7}{'sparsity':>10}{'top':>10}"]
        for one in self.sparsest(n):
            lines.append(
                f"{one!s:<10}{float(self.mean[one]):>+9.3f}{float(self.deviation[one]):>11.3f}"
                f"{float(self.positive[one]):>7.1%}{float(self.sparsity[one]):>10.3f}"
                f"{float(self.top[one][0]):>10.2f}"
            )
        return "\n".join(lines)
