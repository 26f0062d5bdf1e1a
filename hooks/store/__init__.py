"""Tensors on disk, that are trusted because they are checked. The only door of `hooks` to it."""

from hooks.store.damage import Damaged
from hooks.store.shelf import Shelf

__all__ = ["Damaged", "Shelf"]
