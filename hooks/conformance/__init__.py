"""Does this model do what our sites promise? Found out by running it, not by its name.

`audit` decides what may be read and written; `check_model` then holds the model to it. Knows
no task and no architecture by name.
"""

from hooks.conformance.check import check_model
from hooks.conformance.streams import audit
from hooks.conformance.verdicts import Check, Conformance

__all__ = ["Check", "Conformance", "audit", "check_model"]
