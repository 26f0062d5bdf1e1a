"""What can be read off activations, and whether that says anything.

Fit, then apply: a fit sees data and returns a small frozen probe. Every fit is at its optimum or
says that it is not; splits keep groups whole; what is chosen is chosen inside the training part.
"""

from workbench.probes.amnesic import Amnesia, amnesic
from workbench.probes.completeness import Completeness, completeness
from workbench.probes.concepts import Tcav, concept_direction, tcav
from workbench.probes.erasure import (
    Eraser,
    Moments,
    eraser,
    inlp,
    leace,
    least_squares_accuracy,
    mean_projection,
    moments,
    projection,
)
from workbench.probes.examples import Examples, examples, features, from_store
from workbench.probes.fitting import Fits, fit, fit_each, held_out_scores
from workbench.probes.likelihood import Before, sentence_logprob, surprisal
from workbench.probes.minimal_pairs import MinimalPairs, minimal_pairs
from workbench.probes.placebos import Placebos
from workbench.probes.probe import LinearProbe, Probe
from workbench.probes.regions import RegionSurprisal, region_surprisal
from workbench.probes.splits import Splits, held_out, k_fold
from workbench.probes.steering import SteeringCurve, steer, steering_vector
from workbench.probes.transfer import Transfer, transfer
from workbench.probes.use import Push, Use, text_loss, use
from workbench.probes.words import word_features

__all__ = [
    "Amnesia",
    "Before",
    "Completeness",
    "Eraser",
    "Examples",
    "Fits",
    "LinearProbe",
    "MinimalPairs",
    "Moments",
    "Placebos",
    "Probe",
    "Push",
    "RegionSurprisal",
    "Splits",
    "SteeringCurve",
    "Tcav",
    "Transfer",
    "Use",
    "amnesic",
    "completeness",
    "concept_direction",
    "eraser",
    "examples",
    "features",
    "fit",
    "fit_each",
    "from_store",
    "held_out",
    "held_out_scores",
    "inlp",
    "k_fold",
    "leace",
    "least_squares_accuracy",
    "mean_projection",
    "minimal_pairs",
    "moments",
    "projection",
    "region_surprisal",
    "sentence_logprob",
    "steer",
    "steering_vector",
    "surprisal",
    "tcav",
    "text_loss",
    "transfer",
    "use",
    "word_features",
]
