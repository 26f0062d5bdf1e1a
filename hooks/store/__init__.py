"""Tensors on disk, trusted because they are checked. The only door of `hooks` to it.

    held = store.write(model, batches, sites, path, key=corpus.digest, dtype="float16")
    held = store.open(path)
    for rows in held.shuffled(Site("resid_post", 5), size=512, seed=0): ...

Shelf is the mechanism: keys and tensors, no more. The rest lays activations on it.
"""

from hooks.store.damage import Damaged
from hooks.store.planning import Plan, plan
from hooks.store.reading import Rows, Store, open
from hooks.store.shelf import Shelf
from hooks.store.writing import write

__all__ = ["Damaged", "Plan", "Rows", "Shelf", "Store", "open", "plan", "write"]
