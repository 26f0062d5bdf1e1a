"""What can be read off activations, and whether that says anything.

Fit, then apply: a fit sees data and returns a small frozen probe. Every fit is at its optimum or
says that it is not; splits keep groups whole; what is chosen is chosen inside the training part.
"""

from workbench.probes.amnesic import Amnesia, amnesic
from workbench.probes.closed import Moments, explained, fit_formula, fit_ridge, probe_of
from workbench.probes.completeness import Completeness, completeness
from workbench.probes.concepts import Tcav, concept_direction, tcav
from workbench.probes.contrast import apart, fit_ccs, fit_crc, turned
from workbench.probes.controls import (
    control_ceiling,
    control_labels,
    one_hot,
    random_directions,
    shuffled_labels,
)
from workbench.probes.description import Description, online_code, variational_code
from workbench.probes.erasure import (
    CrossMoments,
    Eraser,
    eraser,
    inlp,
    leace,
    least_squares_accuracy,
    mean_projection,
    moments,
    projection,
)
from workbench.probes.examples import (
    Examples,
    Place,
    examples,
    features,
    features_of,
    from_store,
)
from workbench.probes.fitting import Fits, fit, fit_each, held_out_scores
from workbench.probes.information import (
    Curve,
    conditional_information,
    learning_curve,
    usable_information,
)
from workbench.probes.likelihood import Before, sentence_logprob, surprisal
from workbench.probes.minimal_pairs import MinimalPairs, minimal_pairs
from workbench.probes.nested import Nested, nested
from workbench.probes.networks import AttentionProbe, NetworkProbe, fit_attention, fit_networks
from workbench.probes.placebos import Placebos
from workbench.probes.probe import LinearProbe, Probe
from workbench.probes.regions import RegionSurprisal, region_surprisal
from workbench.probes.report import ProbeStudy
from workbench.probes.scores import Judgement, accuracy, judge
from workbench.probes.sparse import SparseProbes, fit_sparse, strongest_neurons
from workbench.probes.splits import Splits, held_out, inner, k_fold, repeated_k_fold
from workbench.probes.steered import steered
from workbench.probes.steering import SteeringCurve, steer, steering_vector
from workbench.probes.study import study
from workbench.probes.transfer import Transfer, transfer
from workbench.probes.trees import (
    TreeProbe,
    TreeScore,
    fit_depth,
    fit_distance,
    judge_tree,
    tree_distances,
)
from workbench.probes.use import Push, Use, text_loss, use
from workbench.probes.words import Parsed, parsed, word_features

__all__ = [
    "Amnesia",
    "AttentionProbe",
    "Before",
    "Completeness",
    "CrossMoments",
    "Curve",
    "Description",
    "Eraser",
    "Examples",
    "Fits",
    "Judgement",
    "LinearProbe",
    "MinimalPairs",
    "Moments",
    "Nested",
    "NetworkProbe",
    "Parsed",
    "Place",
    "Placebos",
    "Probe",
    "ProbeStudy",
    "Push",
    "RegionSurprisal",
    "SparseProbes",
    "Splits",
    "SteeringCurve",
    "Tcav",
    "Transfer",
    "TreeProbe",
    "TreeScore",
    "Use",
    "accuracy",
    "amnesic",
    "apart",
    "completeness",
    "concept_direction",
    "conditional_information",
    "control_ceiling",
    "control_labels",
    "eraser",
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
    "inlp",
    "inner",
    "judge",
    "judge_tree",
    "k_fold",
    "leace",
    "learning_curve",
    "least_squares_accuracy",
    "mean_projection",
    "minimal_pairs",
    "moments",
    "nested",
    "one_hot",
    "online_code",
    "parsed",
    "probe_of",
    "projection",
    "random_directions",
    "region_surprisal",
    "repeated_k_fold",
    "sentence_logprob",
    "shuffled_labels",
    "steer",
    "steered",
    "steering_vector",
    "strongest_neurons",
    "study",
    "surprisal",
    "tcav",
    "text_loss",
    "transfer",
    "tree_distances",
    "turned",
    "usable_information",
    "use",
    "variational_code",
    "word_features",
]
