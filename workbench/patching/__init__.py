"""What changes when an activation of one run is put into another, for every place in a model."""

from workbench.patching.evidence import Direction
from workbench.patching.maps import Sweep, Sweeps
from workbench.patching.path_effects import PathEffects
from workbench.patching.path_patching import Between, path, paths
from workbench.patching.places import Over, Place
from workbench.patching.points import Node
from workbench.patching.ranking import Ranking
from workbench.patching.sweeping import Running, Where, each, neurons, sweep, sweeps

__all__ = [
    "Between",
    "Direction",
    "Node",
    "Over",
    "PathEffects",
    "Place",
    "Ranking",
    "Running",
    "Sweep",
    "Sweeps",
    "Where",
    "each",
    "neurons",
    "path",
    "paths",
    "sweep",
    "sweeps",
]
