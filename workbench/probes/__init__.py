"""What can be read off activations, and whether that says anything.

Fit, then apply: a fit sees data and returns a small frozen probe. Every fit is at its optimum or
says that it is not; splits keep groups whole; what is chosen is chosen inside the training part.
"""

from workbench.probes.controls import (
    control_ceiling,
    control_labels,
    one_hot,
    random_directions,
    shuffled_labels,
)
from workbench.probes.description import Description, online_code, variational_code
from workbench.probes.examples import Examples, examples, features, from_store
from workbench.probes.fitting import Fits, fit, fit_each, held_out_scores
from workbench.probes.information import (
    Curve,
    conditional_information,
    learning_curve,
    usable_information,
)
from workbench.probes.nested import Nested, nested
from workbench.probes.probe import LinearProbe, Probe
from workbench.probes.report import ProbeStudy
from workbench.probes.scores import Judgement, accuracy, judge
from workbench.probes.splits import Splits, held_out, inner, k_fold
from workbench.probes.study import study

__all__ = [
    "Curve",
    "Description",
    "Examples",
    "Fits",
    "Judgement",
    "LinearProbe",
    "Nested",
    "Probe",
    "ProbeStudy",
    "Splits",
    "accuracy",
    "conditional_information",
    "control_ceiling",
    "control_labels",
    "examples",
    "features",
    "fit",
    "fit_each",
    "from_store",
    "held_out",
    "held_out_scores",
    "inner",
    "judge",
    "k_fold",
    "learning_curve",
    "nested",
    "one_hot",
    "online_code",
    "random_directions",
    "shuffled_labels",
    "study",
    "usable_information",
    "variational_code",
]
