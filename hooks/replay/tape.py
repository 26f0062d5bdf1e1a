"""Keys and values of a recorded run, handed back to the blocks when they run again.

The only file that names a class of transformers: attention asks the cache it is given.
"""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache

KeysAndValues = tuple[Tensor, Tensor]


class KeysAndValuesHeld(Exception):  # noqa: N818 - a signal, not an error
    """Ends a pass through a block of which only keys and values were wanted; it has them."""

    def __init__(self, held: KeysAndValues) -> None:
        super().__init__()
        self.held = held


class Tape(DynamicCache):
    """Holds each layer's keys and values at full length; windows and crops do not apply to it.

    While it records it hands back what it is given, and says it holds nothing, so that the
    model makes the masks of an ordinary pass. When blocks run again from position `start` on
    for the prompts `rows`, it puts the recorded positions before the new ones.

    While it is `holding` a block ends as soon as its keys and values are known. When some are
    `held`, they are what attention gets, whatever it brings.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recorded: dict[int, tuple[Tensor, Tensor]] = {}
        self.rows: Int[Tensor, " row"] | None = None
        self.start = 0
        self.holding = False
        self.held: KeysAndValues | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The keys and values that attention uses in this layer."""
        if self.rows is None:
            self.recorded[layer_idx] = (key_states, value_states)
            return key_states, value_states
        if self.held is not None:
            return self.held
        whole = key_states, value_states
        if self.start:
            keys, values = self.recorded[layer_idx]
            before = [one[self.rows, :, : self.start] for one in (keys, values)]
            whole = torch.cat([before[0], key_states], 2), torch.cat([before[1], value_states], 2)
        if self.holding:
            raise KeysAndValuesHeld(whole)
        return whole
