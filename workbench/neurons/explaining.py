"""Explanations in words, and how well they predict a neuron (Bills et al. 2023).

An explainer sees a neuron's activations on some text and says in words what it fires at; a
simulator sees those words and new text, and says how strongly the neuron would fire. Both are any
functions of the shapes below; the ones here need no model, those of `asking` are chat models. A
score is the correlation of prediction and truth on text that the explainer has not seen: all of it,
where the paper takes its strongest pieces and as many random ones.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel
from workbench.corpora import Corpus
from workbench.models import words
from workbench.neurons import grounds, scoring
from workbench.neurons.asking import Example
from workbench.neurons.naming import End, Neuron
from workbench.neurons.scoring import correlation
from workbench.neurons.tracing import Traces, traces
from workbench.results import Result
from workbench.statistics import derive

Explainer = Callable[[Sequence[Example]], str]
"""From what the neuron did on some rows to what it fires at, in words."""

Simulator = Callable[[str, Sequence[str]], Sequence[float]]
"""From an explanation and the tokens of a row to how strongly the neuron fires at each."""

_START, _AFTER = "fires at ", "; after "
_MOST, _LEAST, _DIFFERENT = 12, 2, 0.5


@dataclass(frozen=True, eq=False)
class Explained(Result):
    """How well an explanation in words predicts a neuron on text it was not made from.

    `score` is Pearson's correlation of simulated and true activations; 1 is perfect. `null` is
    the mean score of explanations of other neurons of the same list. `detection` and `fuzzing` are
    chances that the simulation tells right from wrong, 0.5 says nothing: pieces of text where the
    neuron fires from others, and its tokens in such a piece from as many others there.
    """

    neurons: Int[Tensor, "cell part"] = field(metadata={"means": "layer and number"})
    score: Float[Tensor, " cell"] = field(metadata={"means": "correlation, held out"})
    null: Float[Tensor, " cell"] = field(metadata={"means": "the same for others' explanations"})
    detection: Float[Tensor, " cell"] = field(metadata={"means": "does it fire in this piece?"})
    fuzzing: Float[Tensor, " cell"] = field(metadata={"means": "are the right tokens marked?"})
    explanation: list[str] = field(metadata={"axis": "cell"})
    end: str
    explainer: str
    simulator: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    def sentence(self) -> str:
        """What was found, in a sentence."""
        best = int(self.score.argmax())
        return (
            f"Explanations by {self.explainer} of {len(self.score)} neurons of {self.model}, "
            f"followed by {self.simulator}, score {float(self.score.median()):.2f} in the median "
            f"on held-out text of {self.task} (others' explanations "
            f"{float(self.null.median()):.2f}); detection {float(self.detection.nanmedian()):.2f}, "
            f"fuzzing {float(self.fuzzing.nanmedian()):.2f} (chance 0.50). Best: neuron "
            f"{Neuron(*self.neurons[best].tolist())} ({float(self.score[best]):.2f}): "
            f"{self.explanation[best].rstrip('.')}."
        )

    def headline(self) -> dict[str, float]:
        """Median scores and null."""
        return {
            "score": float(self.score.median()), "null": float(self.null.median()),
            "detection": float(self.detection.nanmedian()),
            "fuzzing": float(self.fuzzing.nanmedian()),
        }  # fmt: skip

    def table(self, n: int = 15) -> str:
        """The best explained neurons as text."""
        order = self.score.argsort(descending=True, stable=True)[:n].tolist()
        lines = [
            f"{'neuron':<10}{'score':>7}{'others':>8}{'detection':>11}{'fuzzing':>9}  explanation"
        ]
        for at in order:
            lines.append(
                f"{Neuron(*self.neurons[at].tolist())!s:<10}{float(self.score[at]):>7.2f}"
                f"{float(self.null[at]):>8.2f}{float(self.detection[at]):>11.2f}"
                f"{float(self.fuzzing[at]):>9.2f}  {self.explanation[at][:80]}"
            )
        return "\n".join(lines)


def explain(
    model: HookedModel,
    corpus: Corpus,
    neurons: Sequence[tuple[int, int]],
    *,
    explainer: Explainer | None = None,
    simulator: Simulator | None = None,
    others: int = 5,
    seen: Traces | None = None,
    seed: int = 0,
    end: End = "top",
) -> Explained:
    """Explain `neurons` from one half of the documents of `corpus` and score them on the other.

    Without an explainer the rules here are used: which tokens, and which pairs, it fires at.
    `others` explanations of other neurons of the list make the null; with one neuron it is NaN.
    Where the neurons were traced on this corpus already, `seen` saves a pass. `seed` draws the
    wrong marks of `fuzzing`. With `end` "bottom" every sign is turned first: what is explained
    is where the neurons are most negative.
    """
    if others < 1:
        raise ValueError(f"others={others}: compare with at least one other explanation")
    says, simulates = explainer or by_rules, simulator or follow_rules
    listed = grounds.checked(model, neurons)
    seen = (seen or traces(model, corpus, listed)).those_of(corpus, listed).of_end(end)
    names = _strings(model, seen)
    held = _held_out(seen)
    texts = [_said(says, _examples(seen, seen.of(one), names, ~held)) for one in seen.neurons]
    rows = _examples(seen, seen.of(seen.neurons[0]), names, held)
    kept: dict[str, Tensor] = {}
    for text in texts:
        kept.setdefault(text, _simulated(simulates, text, rows))
    truth = [seen.of(one)[held].double() for one in seen.neurons]
    null = [_null(at, texts, truth[at], kept, others) for at in range(len(texts))]
    scores = _scores(seen, held, [kept[text] for text in texts], truth, seed)
    return Explained(
        neurons=torch.tensor(seen.neurons), **scores, null=torch.tensor(null), explanation=texts,
        end=end, explainer=_name(says), simulator=_name(simulates),
        **grounds.of_corpus(model, corpus),
    )  # fmt: skip


def by_rules(examples: Sequence[Example]) -> str:
    """Which tokens the neuron fires at and how strongly, and after which ones it does otherwise.

    For each token, and for some pairs, the mean activation there as a share of the largest one.
    """
    single: dict[str, list[float]] = defaultdict(list)
    double: dict[tuple[str, str], list[float]] = defaultdict(list)
    for tokens, values in examples:
        for before, token, value in zip(tokens, tokens[1:], values[1:], strict=False):
            single[token].append(value)
            double[before, token].append(value)
    means = {token: sum(some) / len(some) for token, some in single.items()}
    mass = {token: means[token] * len(some) for token, some in single.items()}
    chosen = sorted(means, key=lambda one: (-mass[one], one))[:_MOST]
    chosen = [one for one in chosen if means[one] > 0]
    largest = max((means[one] for one in chosen), default=0.0) or 1.0
    pairs = {
        pair: sum(some) / len(some)
        for pair, some in double.items()
        if len(some) >= _LEAST
        and abs(sum(some) / len(some) - means[pair[1]]) > _DIFFERENT * largest
    }
    best = sorted(pairs, key=lambda one: (-abs(pairs[one]) * len(double[one]), one))[:_MOST]
    shares = {one: _share(means[one], largest) for one in chosen}
    said = _START + json.dumps({one: share for one, share in shares.items() if share})
    if best:
        said += _AFTER + json.dumps({json.dumps(p): _share(pairs[p], largest) for p in best})
    return said


def _said(says: Explainer, examples: Sequence[Example]) -> str:
    text = says(examples)
    if not isinstance(text, str):
        raise TypeError(f"the explainer {_name(says)} gave {text!r}, expected an explanation")
    return text


def _share(value: float, largest: float) -> float:
    return round(value / largest, 2) + 0.0  # of -0.0 makes 0.0


def follow_rules(explanation: str, tokens: Sequence[str]) -> list[float]:
    """What `by_rules` said, applied to new tokens; what it does not mention is 0."""
    body = explanation.removeprefix(_START)
    decoder = json.JSONDecoder()
    try:
        single, end = decoder.raw_decode(body)
        rest = body[end:].removeprefix(_AFTER)
        double: dict[str, float] = decoder.raw_decode(rest)[0] if rest else {}
        pairs = {tuple(json.loads(pair)): float(value) for pair, value in double.items()}
        single = {token: float(value) for token, value in single.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"follow_rules reads what by_rules says, found {explanation[:80]!r}: give a simulator "
            "that reads words, such as follow_chat(model)"
        ) from error
    found = [0.0]
    for before, token in pairwise(tokens):
        alone = single.get(token, 0.0)
        found.append(pairs.get((before, token), alone))
    return found


def _scores(
    seen: Traces, held: Tensor, simulated: list[Tensor], truth: list[Tensor], seed: int
) -> dict[str, Float[Tensor, " cell"]]:
    """What each neuron's own explanation scores on held-out text."""
    piece, count = scoring.pieces(seen.row[held], seen.position[held])
    found: dict[str, list[float]] = {"score": [], "detection": [], "fuzzing": []}
    for neuron, guess, true in zip(seen.neurons, simulated, truth, strict=True):
        draws = derive(seed, "fuzzing", str(neuron))
        found["score"].append(correlation(guess, true))
        found["detection"].append(scoring.detection(guess, true, piece, count))
        found["fuzzing"].append(scoring.fuzzing(guess, true, piece, generator=draws))
    return {name: torch.tensor(values) for name, values in found.items()}


def _null(
    at: int, texts: list[str], truth: Tensor, kept: Mapping[str, Tensor], others: int
) -> float:
    count = len(texts)
    step = max(1, (count - 1) // others)
    chosen = [texts[(at + turn) % count] for turn in range(1, count, step)][:others]
    chosen = [one for one in chosen if one != texts[at]]
    scores = [correlation(kept[one], truth) for one in chosen]
    return sum(scores) / len(scores) if scores else float("nan")


def _name(of: Any) -> str:
    return str(getattr(of, "name", None) or getattr(of, "__name__", type(of).__name__))


def _strings(model: Any, seen: Traces) -> dict[int, str]:
    ids = torch.cat([seen.token, seen.before]).unique()
    return dict(zip(ids.tolist(), words(model, ids), strict=True))


def _held_out(seen: Traces) -> Tensor:
    """Every other document; every other row where there is one document."""
    by = seen.document if len(seen.document.unique()) > 1 else seen.row
    kinds, rank = by.unique(return_inverse=True)
    if len(kinds) < 2:
        raise ValueError(
            "the corpus has one row of more than one token: explanations are made from one half "
            "and judged on the other; give more text, or cut it into shorter rows"
        )
    return rank % 2 == 1


def _examples(
    seen: Traces, value: Tensor, names: Mapping[int, str], chosen: Tensor
) -> list[Example]:
    """Rows of the chosen tokens, each with its first token before them."""
    rows: list[Example] = []
    last = -1
    parts = (seen.row[chosen], seen.before[chosen], seen.token[chosen], value[chosen])
    for row, before, token, active in zip(*(part.tolist() for part in parts), strict=True):
        if row != last:
            rows.append(([names[before]], [0.0]))
            last = row
        rows[-1][0].append(names[token])
        rows[-1][1].append(active)
    return rows


def _simulated(simulates: Simulator, text: str, rows: Sequence[Example]) -> Tensor:
    found: list[float] = []
    for tokens, _ in rows:
        said = list(simulates(text, tokens))
        if len(said) != len(tokens):
            raise ValueError(f"the simulator gave {len(said)} numbers for {len(tokens)} tokens")
        found += said[1:]
    return torch.tensor(found, dtype=torch.double)
