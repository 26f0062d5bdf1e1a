"""Which heads say the token that they attend to, and which argue against it.

Two views of the circuit from a token through a head's values and outputs (OV) to the logits, for
a head that attends to that token alone:

copying           how often a token's own logit is among the five most raised, read off its
                  embedding and what the first MLP adds: the copy score of Wang et al. 2022, who ask
                  it of names, here asked of any words
copy-suppressing  how often it is among the five most lowered (McDougall et al. 2023, the ten most)
positive OV       the sum of the circuit's eigenvalues over the sum of their sizes (Elhage et al.
                  2021), here over a sample of tokens, both sides less their mean; negative OV:
                  the same below zero
"""

from typing import Any

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel
from workbench import statistics
from workbench.heads.kinds.measured import Measured, both_ways
from workbench.heads.kinds.reading import Hearing, values_of_tokens, written
from workbench.heads.naming import Head

COPYING, SUPPRESSING = "copying", "copy-suppressing"
POSITIVE, NEGATIVE = "positive OV", "negative OV"

TOP = 5
THRESHOLD = 0.5
_ASKED, _AMONG, _SAMPLED = 64, 8192, 512
_DRAWS = 2000

OTHERS = "other tokens' logits, of the same output"
ROTATED = "its values, mixed by a random rotation before they are written"


def vocabulary(model: Any, generator: torch.Generator) -> Int[Tensor, " token"]:
    """Tokens of the model's vocabulary in random order, without those that only steer."""
    order = torch.randperm(model.cfg.d_vocab, generator=generator)
    if getattr(model, "tokenizer", None) is None:
        return order
    special = {*model.tokenizer.all_special_ids, *model.tokenizer.added_tokens_decoder}
    return torch.tensor([one for one in order.tolist() if one not in special])


@torch.no_grad()
def copying(model: HookedModel, *, seed: int) -> tuple[list[Measured], list[Head]]:
    """The four types of this file, for every head."""
    among = vocabulary(model, statistics.derive(seed, "types", "vocabulary"))[:_AMONG]
    asked, sampled = among[:_ASKED], among[:_SAMPLED]
    values, heads = values_of_tokens(model, sampled)
    hearing, out = Hearing.of(model), written(model, heads)
    said = einsum(values[:, : len(asked)], out, "h t d, h d m -> h t m")
    raised, lowered = tops(said, hearing.directions(among), len(asked))
    found = [
        _of_tokens(COPYING, raised, seed=seed),
        _of_tokens(SUPPRESSING, lowered, seed=seed),
        *_of_weights(circuits(values, out, hearing.directions(sampled)), seed=seed),
    ]
    return found, heads


def tops(
    said: Float[Tensor, "head token d_model"],
    directions: Float[Tensor, "vocab d_model"],
    asked: int,
) -> tuple[Float[Tensor, "head token asked"], Float[Tensor, "head token asked"]]:
    """Which of the first `asked` tokens are among the most raised, and most lowered, of all."""
    raised, lowered = [], []
    top = min(TOP, max(1, len(directions) // 10))
    for one in said:  # one head at a time: all logits of all heads are gigabytes
        logits = one.float() @ directions.float().T
        for sign, marks in ((1, raised), (-1, lowered)):
            signed = sign * logits
            least = signed.topk(top, dim=1).values[:, -1:]
            # A head that says nothing raises no token.
            marks.append((signed[:, :asked] >= least) & (signed[:, :asked] > 0))
    return torch.stack(raised).double(), torch.stack(lowered).double()


def circuits(
    values: Float[Tensor, "head token d_head"],
    out: Float[Tensor, "head d_head d_model"],
    directions: Float[Tensor, "token d_model"],
) -> Float[Tensor, "head d_head d_head"]:
    """Matrices with the eigenvalues of the maps from token to logit, over these tokens."""
    values = values - values.mean(1, keepdim=True)
    directions = directions - directions.mean(0)
    hears = einsum(out, directions, "h d m, t m -> h d t")
    return einsum(hears, values, "h d t, h t e -> h d e") / values.shape[1]


def positivity(circuit: Float[Tensor, "head d_head d_head"]) -> Float[Tensor, " head"]:
    """Sum of the eigenvalues over the sum of their sizes: 1 copies, -1 argues against."""
    eigenvalues = torch.linalg.eigvals(circuit)
    size = eigenvalues.abs().sum(1)
    return torch.where(size > 0, eigenvalues.real.sum(1) / size.clamp(min=1e-300), 0.0)


def _of_tokens(name: str, marks: Float[Tensor, "head token asked"], *, seed: int) -> Measured:
    own = marks.diagonal(dim1=1, dim2=2)
    others = (marks.sum(2) - own) / (marks.shape[2] - 1)
    bounds = statistics.bounds(own - others, seed=seed)
    test = statistics.matching_test(marks, seed=seed)
    return Measured(
        name, "share of tokens", OTHERS, THRESHOLD, own.mean(1), others.mean(1),
        bounds.low, bounds.high, test.corrected,
    )  # fmt: skip


def _of_weights(circuit: Float[Tensor, "head d_head d_head"], *, seed: int) -> list[Measured]:
    score, p = positivity(circuit).cpu(), rotation_test(circuit, seed=seed)
    nothing = torch.full_like(score, torch.nan)  # weights are not a sample of anything
    positive = Measured(
        POSITIVE, "share of eigenvalues", ROTATED, THRESHOLD, score, torch.zeros_like(score),
        nothing, nothing, p,
    )  # fmt: skip
    return both_ways(positive, NEGATIVE)


def rotation_test(
    circuit: Float[Tensor, "head d_head d_head"], *, seed: int
) -> Float[Tensor, " head"]:
    """Is the trace farther from zero than under random rotations? Corrected for all heads.

    The rotations keep what a head can read and write, and scramble which goes with which. Each
    trace is taken in units of the circuit's own size; the rotations are shared by all heads.
    """
    width = circuit.shape[1]
    generator = statistics.derive(seed, "types", "rotations")
    noise = torch.randn(_DRAWS, width, width, generator=generator, dtype=torch.double)
    rotations, upper = torch.linalg.qr(noise)
    rotations = rotations * upper.diagonal(dim1=1, dim2=2).sign()[:, None]
    size = circuit.flatten(1).norm(dim=1)[:, None, None]
    unit = torch.where(size > 0, circuit / size.clamp(min=1e-300), 0.0).cpu()
    chance = (rotations.flatten(1) @ unit.mT.flatten(1).T).abs().amax(1)
    seen = unit.diagonal(dim1=1, dim2=2).sum(1).abs() - 1e-10
    return (1 + (chance[:, None] >= seen).sum(0)) / (1 + _DRAWS)
