"""What can be read off activations, and whether that says anything.

Fit, then apply: a fit sees data and returns a small frozen probe. Every fit is at its optimum or
says that it is not; splits keep groups whole; what is chosen is chosen inside the training part.
"""

from workbench.probes.examples import Examples, examples, features, from_store
from workbench.probes.fitting import Fits, fit, fit_each, held_out_scores
from workbench.probes.probe import LinearProbe, Probe
from workbench.probes.splits import Splits, held_out, k_fold

__all__ = [
    "Examples",
    "Fits",
    "LinearProbe",
    "Probe",
    "Splits",
    "examples",
    "features",
    "fit",
    "fit_each",
    "from_store",
    "held_out",
    "held_out_scores",
    "k_fold",
]
