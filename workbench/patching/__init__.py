"""What changes when an activation of one run is put into another, for every place and every edge.

`sweep` visits places: layers, positions, heads, neurons; `plan` says what it will cost. `paths`
finds what each head says to others, `path` what one chain of them does; `causal_tracing` restores
states under noise. Edges between the parts of a model are estimated from gradients
(`attribute_edges`), or changed one by one (`exact_edges`, `acdc`). A `Circuit` is a value;
`faithfulness`, `faithfulness_curve`, `completeness`, `minimality`, `against_chance`, `stability`
and `agreement` say how good it is.
"""

from workbench.patching.acdc import AcdcCircuit, acdc
from workbench.patching.agreement import Agreement, Stability, agreement, stability
from workbench.patching.asking import Running, SweepPlan, plan
from workbench.patching.causal_tracing import Noise, Severed, causal_tracing
from workbench.patching.chance import AgainstChance, against_chance
from workbench.patching.circuits import Circuit
from workbench.patching.completeness import Completeness, completeness
from workbench.patching.cutting import measure_circuits
from workbench.patching.edges import attribute_edges
from workbench.patching.evidence import Direction
from workbench.patching.exact_edges import exact_edges
from workbench.patching.faithfulness import (
    Faithfulness,
    FaithfulnessCurve,
    faithfulness,
    faithfulness_curve,
)
from workbench.patching.graph import Graph
from workbench.patching.maps import Sweep, Sweeps
from workbench.patching.minimality import Minimality, minimality
from workbench.patching.path_effects import PathEffects
from workbench.patching.path_patching import Between, path, paths
from workbench.patching.places import Over, Place, Where
from workbench.patching.points import Node
from workbench.patching.ranking import Ranking
from workbench.patching.scores import EdgeScores
from workbench.patching.study import CircuitStudy, study_circuit
from workbench.patching.sweeping import each, neurons, sweep, sweeps
from workbench.patching.tracing import Tracing

__all__ = [
    "AcdcCircuit",
    "AgainstChance",
    "Agreement",
    "Between",
    "Circuit",
    "CircuitStudy",
    "Completeness",
    "Direction",
    "EdgeScores",
    "Faithfulness",
    "FaithfulnessCurve",
    "Graph",
    "Minimality",
    "Node",
    "Noise",
    "Over",
    "PathEffects",
    "Place",
    "Ranking",
    "Running",
    "Severed",
    "Stability",
    "Sweep",
    "SweepPlan",
    "Sweeps",
    "Tracing",
    "Where",
    "acdc",
    "against_chance",
    "agreement",
    "attribute_edges",
    "causal_tracing",
    "completeness",
    "each",
    "exact_edges",
    "faithfulness",
    "faithfulness_curve",
    "measure_circuits",
    "minimality",
    "neurons",
    "path",
    "paths",
    "plan",
    "stability",
    "study_circuit",
    "sweep",
    "sweeps",
]
