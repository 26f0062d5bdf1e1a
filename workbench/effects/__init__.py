"""Many edits and a metric to one number per prompt: what every analysis that intervenes shares.

Does not know which question is being asked.
"""

from workbench.effects.exact import Cost, Effects, exact, plan
from workbench.effects.measure import measure

__all__ = ["Cost", "Effects", "exact", "measure", "plan"]
