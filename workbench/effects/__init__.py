"""Many edits and a metric to one number per prompt: what every analysis that intervenes shares.

Exact (`exact`, by replay), or estimated from gradients (`attribute`). Does not know which question
is being asked.
"""

from workbench.effects.attribute import attribute, conductance, grad_drop
from workbench.effects.attribution import Attribution, Node
from workbench.effects.exact import Cost, Effects, Run, exact, plan
from workbench.effects.integrated import Integrated
from workbench.effects.kept import keeping
from workbench.effects.measure import measure
from workbench.effects.optimal import Optimum, optimal_constant, optimal_constants
from workbench.effects.quadrature import Quadrature
from workbench.effects.sources import Source, mean_over, values

__all__ = [
    "Attribution",
    "Cost",
    "Effects",
    "Integrated",
    "Node",
    "Optimum",
    "Quadrature",
    "Run",
    "Source",
    "attribute",
    "conductance",
    "exact",
    "grad_drop",
    "keeping",
    "mean_over",
    "measure",
    "optimal_constant",
    "optimal_constants",
    "plan",
    "values",
]
