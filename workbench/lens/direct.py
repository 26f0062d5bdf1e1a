"""Who wrote the answer into the last residual stream (direct attribution, Elhage et al. 2021)."""

from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, HookedModel, Site, capture, head_out, heads, sites
from workbench import statistics
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels


@dataclass(frozen=True, eq=False)
class DirectAttribution(Result):
    """What each component wrote into logit(answer) - logit(foil). Positive: for the answer.

    Seen through the final norm with its scale as it was, so that everything adds up:
    embed + heads + attention biases + MLPs + constant = total, for every prompt.
    """

    effect: Float[Tensor, "layer head"] = field(metadata={"means": "mean direct effect of a head"})
    low: Float[Tensor, "layer head"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, "layer head"] = field(metadata={"means": "upper 95 % bound of effect"})
    attention: Float[Tensor, " layer"] = field(metadata={"means": "mean effect of all heads"})
    attention_low: Float[Tensor, " layer"] = field(metadata={"means": "lower 95 % bound"})
    attention_high: Float[Tensor, " layer"] = field(metadata={"means": "upper 95 % bound"})
    mlp: Float[Tensor, " layer"] = field(metadata={"means": "mean direct effect of an MLP"})
    mlp_low: Float[Tensor, " layer"] = field(metadata={"means": "lower 95 % bound of mlp"})
    mlp_high: Float[Tensor, " layer"] = field(metadata={"means": "upper 95 % bound of mlp"})
    p: Float[Tensor, "layer head"] = field(metadata={"means": "p-value, corrected for all heads"})
    head_per_prompt: Float[Tensor, "layer head batch"]
    mlp_per_prompt: Float[Tensor, "layer batch"]
    bias_per_prompt: Float[Tensor, "layer batch"] = field(metadata={"means": "attention biases"})
    embed_per_prompt: Float[Tensor, " batch"]
    constant: Float[Tensor, " batch"] = field(metadata={"means": "biases of norm and unembedding"})
    total: Float[Tensor, " batch"] = field(metadata={"means": "the model's logit difference"})
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def strongest(self, n: int) -> list[tuple[int, int]]:
        """The `n` heads that write most for or against the answer, strongest first."""
        size = self.effect.abs().flatten()
        there = int((~size.isnan()).sum())  # without heads that were removed
        order = size.nan_to_num(nan=-1.0).argsort(descending=True, stable=True)
        order = order[: min(n, there)].tolist()
        return [divmod(index, self.effect.shape[1]) for index in order]

    def sentence(self) -> str:
        """What was found, in a sentence."""
        top = self.strongest(3)
        names = ", ".join(f"{a}.{b} ({float(self.effect[a, b]):+.2f})" for a, b in top)
        attention, mlps = float(self.attention.sum()), float(self.mlp.sum())
        embed = float(self.embed_per_prompt.mean())
        return (
            f"The logit difference of {self.task} in {self.model} is "
            f"{float(self.total.mean()):+.2f} {self.unit}: attention wrote {attention:+.2f}, MLPs "
            f"{mlps:+.2f}, the embedding {embed:+.2f}. Strongest heads: {names}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, float]:
        """The strongest head's direct effect with its bounds."""
        layer, head = self.strongest(1)[0]
        at = (layer, head)
        found = {name: float(getattr(self, name)[at]) for name in ("low", "high")}
        return {"effect": float(self.effect[at]), **found, "layer": layer, "head": head}

    def table(self, n: int = 15) -> str:
        """The strongest heads as text, one a line."""
        return statistics.table(self.strongest(n), result=self, named="head", value="wrote")


@torch.no_grad()
def direct_attribution(model: HookedModel, task: Task, *, seed: int = 0) -> DirectAttribution:
    """Split the logit difference at the last position into what each component wrote.

    Refused where nothing adds up: answers or foils that are sets, heads whose sum is
    normalised before it is added (Gemma 2 and 3), soft-capped logits.
    """
    if task.answer.shape[1] > 1 or task.foil.shape[1] > 1:
        raise ValueError(
            f"{task.name} has sets of answers or foils, whose logits do not add up: direct "
            "attribution needs one answer and one foil for each prompt"
        )
    parts = [*sites.all(model, "z"), *sites.all(model, "attn_out"), Site("resid_pre", 0)]
    has_mlp = "mlp_out" in model.access.readable
    parts += sites.all(model, "mlp_out") if has_mlp else []
    seen = capture(
        model, task.clean, [*parts, Site("final")], positions=task.clean.last, logits="last"
    )
    write = _Direction.of(model, task, seen)
    layers = range(model.cfg.n_layers)
    wrote = [write(head_out(model, seen, layer)[:, 0]).T for layer in layers]
    attention = torch.stack([write(seen[Site("attn_out", layer)][:, 0]) for layer in layers])
    mlps = torch.zeros_like(attention)
    if has_mlp:
        mlps = torch.stack([write(seen[Site("mlp_out", layer)][:, 0]) for layer in layers])
    embed = write(seen[Site("resid_pre", 0)][:, 0])
    total = _checked_total(seen, task, attention.sum(0) + mlps.sum(0) + embed + write.constant)
    return _attributed(
        model,
        task,
        seed=seed,
        cells=torch.cat(wrote).float().cpu(),
        mlp_per_prompt=mlps.float().cpu(),
        bias_per_prompt=(attention - torch.stack([one.sum(0) for one in wrote])).float().cpu(),
        embed_per_prompt=embed.float().cpu(),
        constant=write.constant.float().cpu(),
        total=total.float().cpu(),
    )


def _attributed(
    model: HookedModel,
    task: Task,
    *,
    seed: int,
    cells: Float[Tensor, "cell batch"],
    **per_prompt: Tensor,
) -> DirectAttribution:
    head, low, high = statistics.bounds(cells, seed=seed)
    every = heads.on_grid(model, cells)
    whole = every.nansum(dim=1) + per_prompt["bias_per_prompt"]
    attention, attention_low, attention_high = statistics.bounds(whole, seed=seed)
    mlp, mlp_low, mlp_high = statistics.bounds(per_prompt["mlp_per_prompt"], seed=seed)
    test = statistics.permutation_test(cells, seed=seed)
    return DirectAttribution(
        effect=heads.on_grid(model, head.float()),
        low=heads.on_grid(model, low.float()),
        high=heads.on_grid(model, high.float()),
        attention=attention.float(),
        attention_low=attention_low.float(),
        attention_high=attention_high.float(),
        mlp=mlp.float(),
        mlp_low=mlp_low.float(),
        mlp_high=mlp_high.float(),
        p=heads.on_grid(model, test.corrected.float()),
        head_per_prompt=every,
        unit="nats",
        **per_prompt,
        **labels(model, task, unsolved=""),
    )


@dataclass(frozen=True, eq=False)
class _Direction:
    """From a part of the residual stream to what it adds to the logit difference.

    The final norm is affine once its scale is fixed. Its weight, bias and whether it centres
    are found by calling it, so that LayerNorm, RMSNorm and Gemma's offset need no cases.
    """

    direction: Float[Tensor, "batch d_model"]
    centres: bool
    constant: Float[Tensor, " batch"]

    def __call__(self, part: Float[Tensor, "batch ... d_model"]) -> Float[Tensor, "batch ..."]:
        part = part.double()
        if self.centres:
            part = part - part.mean(dim=-1, keepdim=True)
        return einsum(part, self.direction, "batch ... d_model, batch d_model -> batch ...")

    @classmethod
    def of(cls, model: HookedModel, task: Task, seen: Activations) -> "_Direction":
        norm, unembed = model.ln_final, model.unembed  # type: ignore[attr-defined]
        final = rearrange(seen[Site("final")], "batch 1 d -> batch d")
        after = norm(final[:, None])[:, 0].double()
        bias = norm(torch.zeros_like(final[:1, None]))[0, 0].double()
        shifted = norm((final + final.abs().mean())[:, None])[:, 0].double()
        centres = bool((shifted - after).abs().max() < 1e-3 * after.abs().max())
        inner = final.double() - final.double().mean(-1, keepdim=True) * float(centres)
        weight = _weight(inner, after - bias)
        words = unembed.W_U.double().T.to(final.device)
        difference = words[task.answer[:, 0]] - words[task.foil[:, 0]]
        extra = getattr(unembed, "b_U", None)
        constant = difference @ bias
        if extra is not None:
            constant = constant + (extra[task.answer[:, 0]] - extra[task.foil[:, 0]]).double()
        return cls(difference * weight, centres, constant)


def _weight(
    before: Float[Tensor, "batch d_model"], after: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch d_model"]:
    """The diagonal map of each prompt from before the norm to after it."""
    safe = torch.where(before == 0, torch.ones_like(before), before)
    return torch.where(before == 0, torch.zeros_like(after), after / safe)


def _checked_total(
    seen: Activations, task: Task, added: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The model's own logit difference, or an error where the parts do not add up to it."""
    last = seen.logits[:, 0].double()
    answer, foil = (ids.to(last.device) for ids in (task.answer, task.foil))
    total = last.gather(1, answer) - last.gather(1, foil)
    error = float((total[:, 0] - added).abs().max())
    tolerance = 1e-3 if seen.logits.dtype in (torch.float32, torch.float64) else 5e-2
    if error > tolerance * max(1.0, float(last.abs().max())):
        raise ValueError(
            f"what the components wrote misses the logit difference by {error:.3g}: something "
            "stands between the last norm and the logits (a soft cap, a scale), so direct "
            "attribution does not hold for this model"
        )
    return total[:, 0]
