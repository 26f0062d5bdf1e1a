"""Reading and writing a model's activations. Knows models; knows no task, metric or figure."""

import os

# Intel's matrix products give the same bits for any number of threads only when asked, before
# the first of them. A choice that was made outside is respected.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

from hooks import edits, heads, replay, sites, store
from hooks.activations import Activations, head_out
from hooks.capture import capture, capture_batches, last_logits, visit
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
    "heads",
    "intervening",
    "last_logits",
    "replay",
    "sites",
    "store",
    "visit",
]
