"""How short can the labels be told to someone who has the activations? (Voita & Titov 2020)

Uniform code: log2(classes) bits a label. Compression is that over what was needed: 1 says the
activations are of no help; labels that are random stay at 1 or below.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.probes.controls import one_hot
from workbench.probes.examples import Examples
from workbench.probes.fitting import check_labels
from workbench.probes.logistic import Problems, solve
from workbench.probes.scores import bits

SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Where the blocks of the online code end, as shares of all examples."""


@dataclass(frozen=True, eq=False)
class Description:
    """Bits to tell all labels, and the uniform code's bits over that (higher: easier to tell).

    `online` holds, for the online code, the bits of each block but the first.
    """

    bits: Float[Tensor, "layer labels"]
    uniform: float
    code: str
    online: Float[Tensor, "layer labels block"] | None = None

    @property
    def compression(self) -> Float[Tensor, "layer labels"]:
        """How many times shorter than the uniform code."""
        return self.uniform / self.bits


def online_code(
    examples: Examples,
    *,
    generator: torch.Generator,
    label_sets: Int[Tensor, "labels example"] | None = None,
    l2: Sequence[float] = (1e-2, 1e-1, 1.0),
    tolerance: float = 1e-5,
) -> Description:
    """Block by block, each coded by the logistic probe of all blocks before it.

    The best of the regularisations is used for the whole message, and to say which is paid for.

    Examples come in random order, groups together. Blocks before which a label has not yet been
    seen are coded uniformly. All layers' blocks and label sets are fitted as one.
    """
    sets = examples.y[None] if label_sets is None else label_sets
    classes, count = check_labels(examples, sets), len(examples)
    member = examples.groups.unique(return_inverse=True)[1]
    place = torch.randperm(int(member.max()) + 1, generator=generator).to(member.device)
    order = place[member].argsort(stable=True)
    ends = sorted({min(count, max(2, round(share * count))) for share in SHARES})
    rank = torch.empty_like(order).scatter(0, order, torch.arange(count, device=order.device))
    parts = torch.stack([rank < end for end in ends[:-1]])
    wanted = [
        (part, labels, place)
        for part in range(len(parts))
        for labels in range(len(sets))
        for place in range(len(l2))
        if len(sets[labels][parts[part]].unique()) == classes
    ]
    lengths = torch.tensor([after - before for before, after in pairwise(ends)])
    uniform = lengths.double() * math.log2(classes)
    blocks = uniform.repeat(len(examples.x), len(sets), len(l2), 1)
    if wanted:
        part, labels, place = torch.tensor(wanted, device=sets.device).T
        strength = torch.tensor(list(l2), dtype=torch.float64, device=sets.device)[place]
        problems = Problems(parts, sets, part, labels, strength, classes, units="all")
        for layer, x in enumerate(examples.x):
            found = solve(x, problems, tolerance=tolerance)
            for number, (one, other, at) in enumerate(wanted):
                block = (rank >= ends[one]) & (rank < ends[one + 1])
                scores = x[block] @ found.weight[number].T + found.bias[number]
                blocks[layer, other, at, one] = float(bits(scores, sets[other][block]).sum())
    best = blocks.sum(dim=-1).min(dim=-1)
    told = best.values + ends[0] * math.log2(classes) + math.log2(len(l2))
    kept = blocks.take_along_dim(best.indices[..., None, None], dim=2)[:, :, 0]
    return Description(told, count * math.log2(classes), "online", online=kept)


def variational_code(
    examples: Examples,
    *,
    generator: torch.Generator,
    label_sets: Int[Tensor, "labels example"] | None = None,
    steps: int = 1500,
    rate: float = 0.02,
) -> Description:
    """The labels by a linear probe with noisy weights, and the noisy weights themselves.

    Weights are normal, their prior normal-Jeffreys (Louizos et al. 2017); what the weights cost is
    their divergence from it, in the approximation of Molchanov et al. (2017). The bound is that
    of the best of `steps` Adam steps' averages, so an upper bound however far it was trained.
    """
    sets = examples.y[None] if label_sets is None else label_sets
    classes = check_labels(examples, sets)
    x = _standardised(examples.x)
    hot = torch.stack([one_hot(one)[0] for one in sets]).to(x)
    shape = (len(x), len(sets), x.shape[-1], classes)
    # The prior has no scale of its own: start small and almost certain.
    mean = (0.01 * torch.randn(shape, generator=generator)).to(x).requires_grad_()
    spread = torch.full_like(mean, -8.0, requires_grad=True)
    adam = torch.optim.Adam([mean, spread], lr=rate)
    recent: list[Tensor] = []
    best = torch.full(shape[:2], torch.inf, device=x.device)
    window = max(1, steps // 15)
    for _ in range(steps):
        nats = _nats(x, hot, mean, spread, generator)
        adam.zero_grad()
        nats.sum().backward()
        adam.step()
        recent.append(nats.detach())
        if len(recent) == window:
            best = torch.minimum(best, torch.stack(recent).mean(dim=0))
            recent = []
    uniform = len(examples) * math.log2(classes)
    return Description(best.double() / math.log(2), uniform, "variational")


def _nats(
    x: Float[Tensor, "layer example column"],
    hot: Float[Tensor, "labels example class"],
    mean: Float[Tensor, "layer labels column class"],
    spread: Float[Tensor, "layer labels column class"],
    generator: torch.Generator,
) -> Float[Tensor, "layer labels"]:
    """One draw of what labels and weights cost; `spread` is the log of the weights' variance."""
    middle = x[:, None] @ mean
    variance = x[:, None].square() @ spread.exp()
    noise = torch.randn(middle.shape, generator=generator).to(middle)
    scores = middle + (variance + 1e-12).sqrt() * noise
    labels = -(scores.log_softmax(dim=-1) * hot).sum(dim=(-1, -2))
    ratio = (spread - (mean.square() + 1e-16).log()).clamp(-20, 20)  # log alpha
    weights = 0.63576 * (1 - (1.8732 + 1.48695 * ratio).sigmoid())
    weights = weights + 0.5 * torch.nn.functional.softplus(-ratio)
    return labels + weights.sum(dim=(-1, -2))


def _standardised(
    x: Float[Tensor, "layer example d_model"],
) -> Float[Tensor, "layer example column"]:
    """Activations in units of their own deviation, with a column of ones."""
    deviation = x.std(dim=1, correction=0, keepdim=True)
    moved = x - x.mean(dim=1, keepdim=True)
    moved = torch.where(deviation > 0, moved / deviation.clamp(min=1e-30), 0.0)
    return torch.cat([moved, torch.ones_like(moved[..., :1])], dim=-1)
