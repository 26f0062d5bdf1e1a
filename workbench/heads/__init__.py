"""How much each attention head matters, and which heads stand in for each other."""

from workbench.heads.ablation import Ablation, Head, HeadEffects, ablate_each
from workbench.heads.backups import Backups, backups
from workbench.heads.candidates import Candidates, candidates
from workbench.heads.clusters import Clusters, cluster, cluster_redundant
from workbench.heads.curves import PruningCurve, curve
from workbench.heads.interaction import Interaction, interaction
from workbench.heads.orders import followed_by, keeping
from workbench.heads.redundancy import Redundancy, redundancy
from workbench.heads.self_repair import SelfRepair, Where, self_repair
from workbench.heads.study import Effort, HeadRedundancy, study_redundancy

__all__ = [
    "Ablation",
    "Backups",
    "Candidates",
    "Clusters",
    "Effort",
    "Head",
    "HeadEffects",
    "HeadRedundancy",
    "Interaction",
    "PruningCurve",
    "Redundancy",
    "SelfRepair",
    "Where",
    "ablate_each",
    "backups",
    "candidates",
    "cluster",
    "cluster_redundant",
    "curve",
    "followed_by",
    "interaction",
    "keeping",
    "redundancy",
    "self_repair",
    "study_redundancy",
]
