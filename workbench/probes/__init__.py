"""What can be read off activations, and whether that says anything.

Fit, then apply: a fit sees data and returns a small frozen probe. Every fit is at its optimum or
says that it is not; splits keep groups whole; what is chosen is chosen inside the training part.
"""

from workbench.probes.amnesic import Amnesia, amnesic
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
from workbench.probes.placebos import Placebos
from workbench.probes.probe import LinearProbe, Probe
from workbench.probes.splits import Splits, held_out, k_fold
from workbench.probes.use import Push, Use, text_loss, use
from workbench.probes.words import word_features

__all__ = [
    "Amnesia",
    "Eraser",
    "Examples",
    "Fits",
    "LinearProbe",
    "Moments",
    "Placebos",
    "Probe",
    "Push",
    "Splits",
    "Use",
    "amnesic",
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
    "moments",
    "projection",
    "text_loss",
    "use",
    "word_features",
]
