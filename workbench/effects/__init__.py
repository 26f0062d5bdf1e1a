"""Many edits and a metric to one number per prompt: what every analysis that intervenes shares.

Does not know which question is being asked.
"""

from workbench.effects.exact import Cost, Effects, exact, plan
from workbench.effects.measure import measure
from workbench.effects.sources import Source, mean_over, values

__all__ = ["Cost", "Effects", "Source", "exact", "mean_over", "measure", "plan", "values"]
