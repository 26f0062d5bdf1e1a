"""How much each attention head matters, what kind it is, and which stand in for each other."""

from workbench.heads.ablating import Ablating, Ablation, ablating
from workbench.heads.ablation import HeadEffects, ablate_each
from workbench.heads.agreement import ImportanceAgreement, agreement, shortlist
from workbench.heads.descent import Descent
from workbench.heads.gates import HeadGates, learn_gates
from workbench.heads.gating import CausalGating, causal_gating
from workbench.heads.importance import Effort, importance
from workbench.heads.kinds import HeadTypes, types
from workbench.heads.likeness import (
    MEASURES,
    HeadSimilarity,
    Measure,
    Substitution,
    similarity,
    substitute,
)
from workbench.heads.mask_gradients import MaskGradients, mask_gradients
from workbench.heads.ranking import Head, Importance
from workbench.heads.shapley import ShapleyValues, exact_shapley, shapley

__all__ = [
    "MEASURES",
    "Ablating",
    "Ablation",
    "CausalGating",
    "Descent",
    "Effort",
    "Head",
    "HeadEffects",
    "HeadGates",
    "HeadSimilarity",
    "HeadTypes",
    "Importance",
    "ImportanceAgreement",
    "MaskGradients",
    "Measure",
    "ShapleyValues",
    "Substitution",
    "ablate_each",
    "ablating",
    "agreement",
    "causal_gating",
    "exact_shapley",
    "importance",
    "learn_gates",
    "mask_gradients",
    "shapley",
    "shortlist",
    "similarity",
    "substitute",
    "types",
]
