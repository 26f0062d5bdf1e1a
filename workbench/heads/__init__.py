"""How much each attention head matters, what kind it is, and which stand in for each other."""

from workbench.heads.ablation import Ablation, Head, HeadEffects, ablate_each
from workbench.heads.kinds import HeadTypes, types
from workbench.heads.likeness import (
    MEASURES,
    HeadSimilarity,
    Measure,
    Substitution,
    similarity,
    substitute,
)

__all__ = [
    "MEASURES",
    "Ablation",
    "Head",
    "HeadEffects",
    "HeadSimilarity",
    "HeadTypes",
    "Measure",
    "Substitution",
    "ablate_each",
    "similarity",
    "substitute",
    "types",
]
