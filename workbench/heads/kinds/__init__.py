"""What kind of head is it? Previous token, induction, name mover, ... each against a null.

What a head attends to (`attending`), what it says of a token (`copying`, `successors`), what it
moves in prompts of the task (`moving`).
"""

from workbench.heads.kinds.finding import types
from workbench.heads.kinds.result import HeadTypes

__all__ = ["HeadTypes", "types"]
