"""Reading and writing a model's activations. Knows models; knows no task, metric or figure."""

from hooks import edits, replay, sites, store
from hooks.activations import Activations, head_out
from hooks.capture import capture, capture_batches, last_logits
from hooks.gradients import Gradients, gradients, gradients_without_each_layer
from hooks.intervene import EditNeverFired, intervening
from hooks.places import Edit, Positions
from hooks.prompts import Prompts
from hooks.sites import Access, HookedModel, Site

__all__ = [
    "Access",
    "Activations",
    "Edit",
    "EditNeverFired",
    "Gradients",
    "HookedModel",
    "Positions",
    "Prompts",
    "Site",
    "capture",
    "capture_batches",
    "edits",
    "gradients",
    "gradients_without_each_layer",
    "head_out",
    "intervening",
    "last_logits",
    "replay",
    "sites",
    "store",
]
