"""Removing attention heads for real: smaller matrices, and layers that keep different heads.

Knows weights and shapes; does not know which heads are worth keeping.
"""

from workbench.models.surgery.cutting import cut, layout, parameters
from workbench.models.surgery.layouts import can_cut
from workbench.models.surgery.loading import is_pruned, load
from workbench.models.surgery.saving import save

__all__ = ["can_cut", "cut", "is_pruned", "layout", "load", "parameters", "save"]
