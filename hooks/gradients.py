"""Gradients of a number per prompt with respect to what flows through named sites.

Reads and differentiates; what is written at the same time is `intervening`'s business.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.capture import last_logits
from hooks.prompts import Prompts
from hooks.sites import HookedModel, Site, check_writable

Function = Callable[[Tensor], Tensor]
"""From logits, (batch, pos, vocab), to one number per prompt."""

Rows = Literal["last", "all"]


@dataclass(frozen=True, eq=False)
class Gradients(Mapping[Site, Tensor]):
    """What one pass forward and back left: `found[site]` is the gradient at the site.

    at            site -> the gradient of each prompt's own number, with the axes `Site.axes`
    activations   site -> what flowed there in the same pass, after the edits in force
    measured      the number of each prompt
    """

    prompts: Prompts
    at: Mapping[Site, Tensor]
    activations: Mapping[Site, Tensor]
    measured: Float[Tensor, " batch"]

    def __getitem__(self, site: Site) -> Tensor:
        if site not in self.at:
            have = ", ".join(map(str, sorted(self.at))) or "nothing"
            raise KeyError(f"there is no gradient at {site}; differentiated: {have}")
        return self.at[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self.at)

    def __len__(self) -> int:
        return len(self.at)


def gradients(
    model: HookedModel,
    prompts: Prompts | Tensor,
    sites: Iterable[Site],
    *,
    of: Function,
    logits: Rows = "all",
) -> Gradients:
    """The gradient of `of` at every site, by one pass forward and one back.

    `of` takes the logits and gives one number per prompt. Each prompt's gradient is that of its
    own number, as if it had been run alone. It says what adding a little to the activation
    would change: at `resid_mid` that goes on to the MLP and past it.

    logits   "last": `of` gets only the row of each prompt's last real token, (batch, 1, vocab),
             and the other rows are not computed where the model can leave them out.

    Inside `intervening`, gradients are those of the edited pass, taken behind the edits of the
    same site. Computed in the model's precision. No parameter gets a gradient.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        tape = _record(model, prompts, sites, of=of, logits=logits, gates=())
        return tape.gradients()


def gradients_without_each_layer(
    model: HookedModel,
    prompts: Prompts | Tensor,
    sites: Iterable[Site],
    *,
    of: Function,
    logits: Rows = "all",
) -> Iterator[tuple[int, Gradients]]:
    """For each layer, what `gradients` gives when nothing flows back into that layer's outputs.

    That is the derivative with what the layer's attention and MLP add held fixed. One pass
    forward, and one back for each layer that this makes a difference to (GradDrop, Kramár et
    al. 2024). Refused where blocks do not add their parts to the residual stream.
    """
    parts = ["attn_out"] if getattr(model.cfg, "attn_only", False) else ["attn_out", "mlp_out"]
    gates = [Site(part, layer) for layer in range(model.cfg.n_layers) for part in parts]  # type: ignore[arg-type]
    for gate in gates:
        check_writable(model, gate)
    with torch.inference_mode(mode=False), torch.enable_grad():
        tape = _record(model, prompts, sites, of=of, logits=logits, gates=gates)
    plain = None
    for layer in range(model.cfg.n_layers):
        if layer in tape.gated:
            yield layer, tape.gradients(without=layer)
        else:  # below every site, so nothing is lost
            plain = plain or tape.gradients()
            yield layer, plain


def read_at(site: Site) -> Site:
    """Where a site's gradient is: TransformerLens's resid_mid leads to the MLP alone.

    What reaches resid_mid through all of attn_out is the same, because it is added to it.
    """
    return Site("attn_out", site.layer) if site.stream == "resid_mid" else site


@dataclass(eq=False)
class _Tape:
    """One pass forward, kept so that it can be differentiated, with some layers held fixed."""

    prompts: Prompts
    nodes: dict[Site, Tensor] = field(default_factory=dict)
    seen: dict[Site, Tensor] = field(default_factory=dict)
    gated: set[int] = field(default_factory=set)  # layers whose outputs depend on a site
    shut: int | None = None
    values: Tensor = field(default_factory=lambda: torch.zeros(0))
    total: Tensor = field(default_factory=lambda: torch.zeros(()))

    @torch.inference_mode(mode=False)
    def gradients(self, *, without: int | None = None) -> Gradients:
        """One pass back; `without` holds that layer's outputs fixed."""
        self.shut = without
        # On the way back some sums are made in an order that depends on the number of threads;
        # with one of them the same config gives the same bits on any.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            found = torch.autograd.grad(
                self.total,
                list(self.nodes.values()),
                retain_graph=bool(self.gated),
                materialize_grads=True,  # what an edit above cuts off has no influence: zero
            )
        finally:
            torch.set_num_threads(threads)
        at = dict(zip(self.nodes, found, strict=True))
        for site, gradient in at.items():
            if not bool(torch.isfinite(gradient.sum())):
                raise FloatingPointError(
                    f"the gradient at {site} is NaN or Inf; look at the activations there with "
                    "capture, and at what is made of the logits"
                )
        return Gradients(self.prompts, at, self.seen, self.values.detach())

    def open(self, site: Site) -> Callable[[Tensor, object], Tensor]:
        """A hook that makes the activation a place to differentiate by."""

        def hook(activation: Tensor, hook: object) -> Tensor:
            if site in self.nodes:
                raise RuntimeError(f"{site} fired twice in one pass; run check_model on this model")
            inside = activation.requires_grad
            node = activation.view_as(activation) if inside else activation.detach()
            self.nodes[site] = node if inside else node.requires_grad_()
            self.seen.setdefault(site, node.detach())
            # A copy, because TransformerLens goes on with what a hook returns, and may write in it.
            return node.clone()

        return hook

    def look(self, site: Site) -> Callable[[Tensor, object], None]:
        """A hook that notes the value of a site whose gradient is elsewhere."""

        def hook(activation: Tensor, hook: object) -> None:
            self.seen[site] = activation.detach()

        return hook

    def gate(self, layer: int) -> Callable[[Tensor, object], Tensor | None]:
        """A hook that stops gradients on their way back, while its layer is the one shut."""

        def close(gradient: Tensor) -> Tensor | None:
            return torch.zeros_like(gradient) if self.shut == layer else None

        def hook(activation: Tensor, hook: object) -> Tensor | None:
            if not activation.requires_grad:
                return None
            self.gated.add(layer)
            passed = activation.clone()
            passed.register_hook(close)
            return passed

        return hook


def _record(
    model: HookedModel,
    prompts: Prompts | Tensor,
    sites: Iterable[Site],
    *,
    of: Function,
    logits: Rows,
    gates: Iterable[Site],
) -> _Tape:
    wanted = list(dict.fromkeys(sites))
    if not wanted:
        raise ValueError("nothing to differentiate by: name at least one site")
    for site in wanted:
        check_writable(model, site)  # where writing changes nothing there is no gradient
    if model.original_model.training:
        raise ValueError("the model is in training mode, where it draws at random: model.eval()")
    device = next(model.original_model.parameters()).device
    tape = _Tape(Prompts.of(prompts).to(device))
    within, between = (
        [site for site in wanted if (site.stream == "resid_mid") == wrong]
        for wrong in (False, True)
    )
    # In this order, what is read as resid_mid lies behind the gate that shuts attn_out.
    hooks: list[Any] = [(site.hook_name, tape.look(site)) for site in between]
    hooks += [(site.hook_name, tape.open(site)) for site in within]
    hooks += [(gate.hook_name, tape.gate(gate.layer)) for gate in gates]
    hooks += [(read_at(site).hook_name, tape.open(site)) for site in between]
    with model.hooks(fwd_hooks=hooks):
        found = last_logits(model, tape.prompts) if logits == "last" else model(tape.prompts)
    silent = [str(site) for site in wanted if site not in tape.nodes]
    if silent:
        raise RuntimeError(f"nothing flowed through {', '.join(silent)}; run check_model")
    tape.nodes = {site: tape.nodes[site] for site in wanted}
    tape.values = _checked(of(found), len(tape.prompts))
    tape.total = tape.values.sum()  # prompts do not meet: each gets the gradient of its own number
    return tape


def _checked(values: Any, batch: int) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (batch,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"`of` must give one number for each of {batch} prompts, it gave {got}")
    if not values.requires_grad:
        raise ValueError(
            "`of` has no gradient: it counts, compares or rounds, or does not read the logits. "
            "Take one that changes smoothly with the logits, such as a difference of them"
        )
    return values
