"""What changes when an activation of one run is put into another, for every place in a model."""

from workbench.patching.maps import Sweep, Sweeps
from workbench.patching.places import Over, Place
from workbench.patching.ranking import Ranking
from workbench.patching.sweeping import Direction, Running, Where, each, neurons, sweep, sweeps

__all__ = [
    "Direction",
    "Over",
    "Place",
    "Ranking",
    "Running",
    "Sweep",
    "Sweeps",
    "Where",
    "each",
    "neurons",
    "sweep",
    "sweeps",
]
