"""What becomes of the logit difference when a head is removed: whose output changes by how much."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, HookedModel, Site, capture, head_out, intervening, sites
from hooks import heads as numbering
from hooks.replay import Cell
from workbench.effects.fixed_norm import FixedNorm
from workbench.heads.naming import Head
from workbench.tasks import Task
from workbench.tasks.task import logit_difference

_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-9}


@dataclass(frozen=True, eq=False)
class Change:
    """Changes of the logit difference that add up: total = direct + heads + mlps + norm.

    NaN: a head that was removed from the model.
    """

    direct: Float[Tensor, " batch"]
    total: Float[Tensor, " batch"]
    norm: Float[Tensor, " batch"]
    heads: Float[Tensor, "layer head batch"]
    mlps: Float[Tensor, "layer batch"]


@dataclass(frozen=True, eq=False)
class Reader:
    """The clean prompts' last positions, and how what is added there moves the logit difference.

    The last norm's scale is held as it is without any edit.
    """

    model: HookedModel
    task: Task
    seen: Activations
    norm: FixedNorm
    direction: Float[Tensor, "batch d_model"]
    total: Float[Tensor, " batch"]

    @classmethod
    def of(cls, model: HookedModel, task: Task) -> "Reader":
        """Run the clean prompts once; refused where parts do not add up to the logits."""
        if task.answer.shape[1] > 1 or task.foil.shape[1] > 1:
            raise ValueError(
                f"{task.name} has sets of answers or foils, whose logits do not add up: take a "
                "task with one answer and one foil for each prompt"
            )
        seen = _seen(model, task)
        norm = FixedNorm.of(model, seen[Site("final")])
        unembed: Any = model.unembed  # type: ignore[attr-defined]
        words = unembed.W_U.double().T.to(norm.weight.device)
        difference = words[task.answer[:, 0]] - words[task.foil[:, 0]]
        direction = difference * norm.weight.expand(len(task), 1, -1)[:, 0]
        total = logit_difference(seen.logits[:, 0].double(), task)
        reader = cls(model, task, seen, norm, direction, total)
        reader.check(seen, total)
        return reader

    def change(self, head: Head, edit: Cell) -> Change:
        """What the edit, which removes `head`, changes and where."""
        with intervening(self.model, edit):
            seen = _seen(self.model, self.task)
        total = logit_difference(seen.logits[:, 0].double(), self.task)
        self.check(seen, total)
        heads = torch.stack([self._heads(seen, layer) for layer in self._layers])
        mlps = torch.zeros_like(heads[:, 0])
        if _has_mlp(self.model):
            mlps = torch.stack([self._moved(seen, Site("mlp_out", one)) for one in self._layers])
        direct = heads[head].clone()
        heads[head] = 0
        moved = self._write(seen[Site("final")][:, 0] - self.seen[Site("final")][:, 0])
        added = direct + heads.nansum(dim=(0, 1)) + mlps.sum(dim=0)
        self._check_sum(moved, added)
        change = total - self.total
        # Taken from what is left, so that rounding of the sum over parts is in the norm's share.
        return Change(direct.cpu(), change.cpu(), (change - added).cpu(), heads.cpu(), mlps.cpu())

    def check(self, seen: Activations, total: Float[Tensor, " batch"]) -> None:
        """Raise where the unembedding of the normed stream is not the logits."""
        unembed: Any = self.model.unembed  # type: ignore[attr-defined]
        norm: Any = self.model.ln_final  # type: ignore[attr-defined]
        logits = unembed(norm(seen[Site("final")]))[:, 0].double()
        error = float((logit_difference(logits, self.task) - total).abs().max())
        if error > self._room * max(1.0, float(logits.abs().max())):
            raise ValueError(
                f"what leaves the last norm misses the logit difference by {error:.3g}: something "
                "stands between it and the logits (a soft cap, a scale), so nothing adds up"
            )

    @property
    def _layers(self) -> range:
        return range(self.model.cfg.n_layers)

    @property
    def _room(self) -> float:
        return _ROUNDING.get(self.seen.logits.dtype, 5e-2)

    def _heads(self, seen: Activations, layer: int) -> Float[Tensor, "head batch"]:
        site = Site("z", layer)
        change = Activations(seen.prompts, {site: seen[site] - self.seen[site]}, seen.positions)
        found = self._write(head_out(self.model, change, layer)[:, 0])
        return rearrange(numbering.widened(self.model, site, found, axis=1), "b head -> head b")

    def _moved(self, seen: Activations, site: Site) -> Float[Tensor, " batch"]:
        return self._write(seen[site][:, 0] - self.seen[site][:, 0])

    def _write(self, part: Float[Tensor, "batch ... d_model"]) -> Float[Tensor, "batch ..."]:
        """What a change of the last stream is worth in the logit difference."""
        part = part.double()
        if self.norm.centres:
            part = part - part.mean(dim=-1, keepdim=True)
        return einsum(part, self.direction, "batch ... d_model, batch d_model -> batch ...")

    def _check_sum(self, moved: Float[Tensor, " batch"], added: Float[Tensor, " batch"]) -> None:
        error = float((moved - added).abs().max())
        if error > self._room * max(1.0, float(moved.abs().max())):
            raise ValueError(
                f"heads and MLPs miss the change of the last stream by {error:.3g}: this model "
                "adds something else to it, so that its changes cannot be split"
            )


def _seen(model: HookedModel, task: Task) -> Activations:
    wanted: Sequence[Site] = [*sites.all(model, "z"), Site("final")]
    if _has_mlp(model):
        wanted = [*wanted, *sites.all(model, "mlp_out")]
    return capture(model, task.clean, wanted, positions=task.clean.last, logits="last")


def _has_mlp(model: HookedModel) -> bool:
    return "mlp_out" in model.access.readable
