"""Edits and a metric to one number per prompt: what every analysis that intervenes shares.

Does not know which question is being asked.
"""

from workbench.effects.attribute import attribute, conductance, grad_drop
from workbench.effects.attribution import Attribution, Node
from workbench.effects.integrated import Integrated
from workbench.effects.measure import measure
from workbench.effects.quadrature import Quadrature

__all__ = [
    "Attribution",
    "Integrated",
    "Node",
    "Quadrature",
    "attribute",
    "conductance",
    "grad_drop",
    "measure",
]
