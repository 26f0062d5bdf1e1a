"""What can be read off activations, and whether that says anything.

Fit, then apply: a fit sees data and returns a small frozen probe. Every fit is at its optimum or
says that it is not; splits keep groups whole; what is chosen is chosen inside the training part.
"""

from workbench.probes.closed import Moments, explained, fit_formula, fit_ridge, probe_of
from workbench.probes.contrast import apart, fit_ccs, fit_crc, turned
from workbench.probes.controls import (
    control_ceiling,
    control_labels,
    one_hot,
    random_directions,
    shuffled_labels,
)
from workbench.probes.description import Description, online_code, variational_code
from workbench.probes.examples import Examples, examples, features, features_of, from_store
from workbench.probes.fitting import Fits, fit, fit_each, held_out_scores
from workbench.probes.information import (
    Curve,
    conditional_information,
    learning_curve,
    usable_information,
)
from workbench.probes.nested import Nested, nested
from workbench.probes.networks import (
    AttentionProbe,
    NetworkProbe,
    fit_attention,
    fit_networks,
)
from workbench.probes.probe import LinearProbe, Probe
from workbench.probes.report import ProbeStudy
from workbench.probes.scores import Judgement, accuracy, judge
from workbench.probes.sparse import SparseProbes, fit_sparse, strongest_neurons
from workbench.probes.splits import Splits, held_out, inner, k_fold
from workbench.probes.study import study
from workbench.probes.trees import (
    TreeProbe,
    TreeScore,
    fit_depth,
    fit_distance,
    judge_tree,
    tree_distances,
)

__all__ = [
    "AttentionProbe",
    "Curve",
    "Description",
    "Examples",
    "Fits",
    "Judgement",
    "LinearProbe",
    "Moments",
    "Nested",
    "NetworkProbe",
    "Probe",
    "ProbeStudy",
    "SparseProbes",
    "Splits",
    "TreeProbe",
    "TreeScore",
    "accuracy",
    "apart",
    "conditional_information",
    "control_ceiling",
    "control_labels",
    "examples",
    "explained",
    "features",
    "features_of",
    "fit",
    "fit_attention",
    "fit_ccs",
    "fit_crc",
    "fit_depth",
    "fit_distance",
    "fit_each",
    "fit_formula",
    "fit_networks",
    "fit_ridge",
    "fit_sparse",
    "from_store",
    "held_out",
    "held_out_scores",
    "inner",
    "judge",
    "judge_tree",
    "k_fold",
    "learning_curve",
    "nested",
    "one_hot",
    "online_code",
    "probe_of",
    "random_directions",
    "shuffled_labels",
    "strongest_neurons",
    "study",
    "tree_distances",
    "turned",
    "usable_information",
    "variational_code",
]
