"""How much each attention head matters, and which heads stand in for each other."""

from workbench.heads.ablation import Ablation, Head, HeadEffects, ablate_each
from workbench.heads.pruning import Replacement, kept, prune

__all__ = [
    "Ablation",
    "Head",
    "HeadEffects",
    "Replacement",
    "ablate_each",
    "kept",
    "prune",
]
