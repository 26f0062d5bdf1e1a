"""What makes a neuron fire, what it writes, and whether the model needs it.

seen = neurons.activity(model, corpus)               # all neurons, one pass, constant memory
seen.dead, seen.sparsest(10), seen.examples(model, corpus, (5, 312))
"""

from workbench.neurons.activity import Activity
from workbench.neurons.naming import Neuron
from workbench.neurons.streaming import activity, top_activations

__all__ = ["Activity", "Neuron", "activity", "top_activations"]
