"""How much each attention head matters, what kind it is, and which stand in for each other."""

from workbench.heads.ablating import Ablating, Ablation, ablating
from workbench.heads.ablation import HeadEffects, ablate_each
from workbench.heads.agreement import ImportanceAgreement, agreement, shortlist
from workbench.heads.backups import Backups, backups
from workbench.heads.candidates import Candidates, candidates
from workbench.heads.clusters import Clusters, cluster, cluster_alike, cluster_redundant
from workbench.heads.costs import Costs, costs
from workbench.heads.curves import PruningCurve, curve
from workbench.heads.descent import Descent
from workbench.heads.gates import HeadGates, learn_gates
from workbench.heads.gating import CausalGating, causal_gating
from workbench.heads.importance import Effort, importance
from workbench.heads.interaction import Interaction, interaction
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
from workbench.heads.naming import Head
from workbench.heads.orders import followed_by, keeping
from workbench.heads.pruning import Replacement, kept, prune
from workbench.heads.pruning_study import PruningStudy, study_pruning
from workbench.heads.ranking import Importance
from workbench.heads.redundancy import Redundancy, redundancy
from workbench.heads.self_repair import SelfRepair, Where, self_repair
from workbench.heads.shapley import ShapleyValues, exact_shapley, shapley
from workbench.heads.study import Extent, HeadRedundancy, study_redundancy

__all__ = [
    "MEASURES",
    "Ablating",
    "Ablation",
    "Backups",
    "Candidates",
    "CausalGating",
    "Clusters",
    "Costs",
    "Descent",
    "Effort",
    "Extent",
    "Head",
    "HeadEffects",
    "HeadGates",
    "HeadRedundancy",
    "HeadSimilarity",
    "HeadTypes",
    "Importance",
    "ImportanceAgreement",
    "Interaction",
    "MaskGradients",
    "Measure",
    "PruningCurve",
    "PruningStudy",
    "Redundancy",
    "Replacement",
    "SelfRepair",
    "ShapleyValues",
    "Substitution",
    "Where",
    "ablate_each",
    "ablating",
    "agreement",
    "backups",
    "candidates",
    "causal_gating",
    "cluster",
    "cluster_alike",
    "cluster_redundant",
    "costs",
    "curve",
    "exact_shapley",
    "followed_by",
    "importance",
    "interaction",
    "keeping",
    "kept",
    "learn_gates",
    "mask_gradients",
    "prune",
    "redundancy",
    "self_repair",
    "shapley",
    "shortlist",
    "similarity",
    "study_pruning",
    "study_redundancy",
    "substitute",
    "types",
]
