"""Removing attention heads for real: smaller matrices, and layers that keep different heads.

Knows weights and shapes; does not know which heads are worth keeping.
"""

from workbench.models.surgery.cutting import cut, layout, parameters

__all__ = ["cut", "layout", "parameters"]
