"""How much each attention head matters, and which heads stand in for each other."""

from workbench.heads.ablation import Ablation, Head, HeadEffects, ablate_each
from workbench.heads.costs import Costs, costs
from workbench.heads.pruning import Replacement, kept, prune

__all__ = [
    "Ablation",
    "Costs",
    "Head",
    "HeadEffects",
    "Replacement",
    "ablate_each",
    "costs",
    "kept",
    "prune",
]
