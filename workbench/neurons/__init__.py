"""What makes a neuron fire, what it writes, and whether the model needs it.

    seen = neurons.activity(model, corpus)             # all neurons, one pass, constant memory
    seen.dead, seen.sparsest(10), seen.examples(model, corpus, (5, 312))
    neurons.triggers(model, corpus, seen.sparsest(20)) # tokens and pairs, detectors, selectivity
    neurons.writes(model).words(model, (5, 312))       # what it promotes and suppresses
    neurons.screen(model, task, metric=metrics.logit_diff)   # estimated for all, exact for the top

"On" and "fires" describe; only `ablate_each`, `ablate_sets`, `screen` and `knowledge` say what a
neuron causes.
"""

from workbench.neurons.ablation import NeuronEffects, ablate_each, ablate_sets, random_sets
from workbench.neurons.activity import Activity
from workbench.neurons.asking import by_chat, follow_chat
from workbench.neurons.atlas import Atlas, atlas
from workbench.neurons.composition import Composition, composition
from workbench.neurons.concepts import ConceptNeurons, find_concept
from workbench.neurons.confidence import Confidence, confidence
from workbench.neurons.direct import NeuronAttribution, direct_effects
from workbench.neurons.explaining import Explained, by_rules, explain, follow_rules
from workbench.neurons.knowledge import KnowledgeNeurons, knowledge
from workbench.neurons.naming import Neuron
from workbench.neurons.screening import Screen, screen
from workbench.neurons.streaming import activity, activity_and_traces, top_activations
from workbench.neurons.study import ConceptStudy, study_concept
from workbench.neurons.tracing import Traces, traces
from workbench.neurons.triggers import Triggers, triggers
from workbench.neurons.universal import Universal, universal
from workbench.neurons.writing import Written, writes

__all__ = [
    "Activity",
    "Atlas",
    "Composition",
    "ConceptNeurons",
    "ConceptStudy",
    "Confidence",
    "Explained",
    "KnowledgeNeurons",
    "Neuron",
    "NeuronAttribution",
    "NeuronEffects",
    "Screen",
    "Traces",
    "Triggers",
    "Universal",
    "Written",
    "ablate_each",
    "ablate_sets",
    "activity",
    "activity_and_traces",
    "atlas",
    "by_chat",
    "by_rules",
    "composition",
    "confidence",
    "direct_effects",
    "explain",
    "find_concept",
    "follow_chat",
    "follow_rules",
    "knowledge",
    "random_sets",
    "screen",
    "study_concept",
    "top_activations",
    "traces",
    "triggers",
    "universal",
    "writes",
]
