"""How much each attention head matters, and which heads stand in for each other."""

from workbench.heads.ablation import Ablation, Head, HeadEffects, ablate_each
from workbench.heads.kinds import HeadTypes, types

__all__ = ["Ablation", "Head", "HeadEffects", "HeadTypes", "ablate_each", "types"]
