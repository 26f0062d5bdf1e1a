"""Probes without labels, from statements and their negations (Burns et al. 2022).

Both find a direction along which a statement and its negation differ in the same way. Nothing says
that it is truth: any feature that does so will be found (Farquhar et al. 2023).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.probes.networks import standard
from workbench.probes.probe import LinearProbe, check_rows
from workbench.probes.training import trained

Side = Float[Tensor, "example d_model"]


def fit_ccs(
    positive: Side,
    negative: Side,
    *,
    generator: torch.Generator,
    restarts: int = 10,
    steps: int = 1000,
    rate: float = 0.02,
    l2: float = 1e-3,
) -> LinearProbe:
    """Contrast-consistent search (Burns et al. 2022): p of both adds up to one, and is decided.

    The restart with the lowest loss is kept; all run as one problem. Each side is normalised by
    itself, and `apart` turns probe and pairs into answers. The sign is arbitrary: `turned` fixes
    it by a few labels.
    """
    _check(positive, negative)
    (low, one), (high, other) = standard(negative), standard(positive)
    plus, minus = (positive - high) / other, (negative - low) / one
    weight = torch.randn(restarts, positive.shape[1], generator=generator).to(positive)
    weight = weight / weight.norm(dim=1, keepdim=True)
    weights = [weight.requires_grad_(), positive.new_zeros(restarts, 1).requires_grad_()]

    def loss() -> Float[Tensor, " problem"]:
        p, q = ((weights[0] @ side.T + weights[1]).sigmoid() for side in (plus, minus))
        consistent = (p - (1 - q)).square().mean(dim=1)
        decided = torch.minimum(p, q).square().mean(dim=1)
        return consistent + decided + l2 / 2 * weights[0].square().sum(dim=1)

    left = trained(weights, loss, steps=steps, rate=rate)
    best = int(loss().detach().argmin())
    row, bias = (one.detach()[best] for one in weights)
    deviation = (one + other) / 2
    return LinearProbe(
        (row / deviation)[None], bias, 2, f"ccs, best of {restarts}", float(left[best])
    )


def fit_crc(positive: Side, negative: Side) -> LinearProbe:
    """The first principal direction of what statements and negations differ by (Burns et al. 2022).

    Each side's mean is taken off first. The sign is arbitrary: `turned` fixes it.
    """
    _check(positive, negative)
    (low, one), (high, other) = standard(negative), standard(positive)
    difference = (positive - high) / other - (negative - low) / one
    _, _, rows = torch.linalg.svd(difference.double(), full_matrices=False)
    way = rows[0].to(positive) / ((one + other) / 2)
    return LinearProbe(way[None], positive.new_zeros(1), 2, "crc")


def apart(probe: LinearProbe, positive: Side, negative: Side) -> Float[Tensor, " example"]:
    """How much more a probe takes a statement for true than its negation, each side centred."""
    plus, minus = positive - positive.mean(dim=0), negative - negative.mean(dim=0)
    return ((plus - minus) @ probe.weight[0].to(positive)) / 2


def turned(probe: LinearProbe, positive: Side, negative: Side, y: Tensor) -> LinearProbe:
    """The same probe, its sign such that most of a few labelled pairs come out right."""
    check_rows(positive, y, each="pair")
    if not len(y):
        raise ValueError("no pair has a label: the sign needs one or more")
    right = ((apart(probe, positive, negative) > 0) == (y == 1)).double().mean()
    if float(right) >= 0.5:
        return probe
    return LinearProbe(-probe.weight, -probe.bias, 2, probe.kind, probe.gradient)


def _check(positive: Side, negative: Side) -> None:
    if positive.shape != negative.shape or len(positive) < 2:
        raise ValueError(
            f"{len(positive)} statements and {len(negative)} negations: give two pairs or more, "
            "each statement in the row of its negation"
        )
    check_rows(positive, each="statement")
    check_rows(negative, each="negation")
