"""What a pruned model saves: numbers to hold, operations, and seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter  # noqa: TID251 - latency is what is measured
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hooks import last_logits
from workbench.models import Model, surgery
from workbench.results import Result

_SIDES = ("before", "after")


@dataclass(frozen=True, eq=False)
class Costs(Result):
    """Seconds of a model before and after. Medians over rounds that take turns, on this machine.

    prefill   reading prompts of `tokens` tokens, up to the logits of the last one
    decode    each further token, with the keys and values of the others in a cache
    `flops` are the operations of one prefill of one prompt, in matrix products alone.
    """

    parameters: Int[Tensor, " side"] = field(metadata={"means": "numbers that were learned"})
    flops: Int[Tensor, " side"] = field(metadata={"means": "operations of one prompt's prefill"})
    prefill: Float[Tensor, "side batch_size round"] = field(
        metadata={"means": "time of a prefill", "unit": "s", "varies": "from run to run"}
    )
    decode: Float[Tensor, "side batch_size round"] = field(
        metadata={"means": "time of one more token", "unit": "s", "varies": "from run to run"}
    )
    side: list[str] = field(metadata={"axis": "side"})
    batch_size: list[int] = field(metadata={"axis": "batch_size"})
    tokens: int
    threads: int = field(metadata={"varies": "from machine to machine"})
    device: str
    model: str
    model_digest: str
    model_before: str
    model_before_digest: str

    def ratio(self, what: str, batch_size: int) -> tuple[float, float, float]:
        """After to before of "prefill" or "decode": median, smallest and largest of the rounds."""
        if what not in ("prefill", "decode") or batch_size not in self.batch_size:
            raise KeyError(
                f"no {what} at batch {batch_size}; there are prefill and decode at batch "
                f"{', '.join(map(str, self.batch_size))}"
            )
        before, after = getattr(self, what)[:, self.batch_size.index(batch_size)].tolist()
        each = [one / other for one, other in zip(after, before, strict=True)]
        return median(each), min(each), max(each)

    def sentence(self) -> str:
        """What was saved, in a sentence or two."""
        kept, operations = (float(one[1] / one[0]) for one in (self.parameters, self.flops))
        gone = int(self.parameters[0] - self.parameters[1])
        said = [
            f"{what} {middle:.2f} [{low:.2f}, {high:.2f}] at batch {size}"
            for what in ("prefill", "decode")
            for size in self.batch_size
            for middle, low, high in [self.ratio(what, size)]
        ]
        return (
            f"{self.model} has {gone:,} parameters less than {self.model_before} ({kept:.1%} are "
            f"left), and {operations:.1%} of its operations for {self.tokens} tokens. Its time to "
            f"that before (median of {self.prefill.shape[-1]} rounds, with the smallest and the "
            f"largest): {', '.join(said)}."
        )

    def headline(self) -> dict[str, float]:
        """Shares that are left of parameters, operations and time."""
        found = {
            f"{what} at batch {size}": self.ratio(what, size)[0]
            for what in ("prefill", "decode")
            for size in self.batch_size
        }
        parameters, flops = (float(one[1] / one[0]) for one in (self.parameters, self.flops))
        return {"parameters": parameters, "flops": flops, **found}

    def table(self) -> str:
        """Milliseconds before and after, one measure a line."""
        lines = [f"{'':<22}{'before':>12}{'after':>12}{'ratio':>8}  smallest, largest"]
        for what in ("prefill", "decode"):
            for at, size in enumerate(self.batch_size):
                before, after = (1e3 * getattr(self, what)[:, at]).median(dim=-1).values.tolist()
                middle, low, high = self.ratio(what, size)
                name = f"{what} (ms), batch {size}"
                lines.append(
                    f"{name:<22}{before:>12.1f}{after:>12.1f}{middle:>8.2f}  {low:.2f}, {high:.2f}"
                )
        return "\n".join(lines)


@torch.no_grad()
def costs(
    before: Model,
    after: Model,
    *,
    batch_sizes: Sequence[int] = (1, 32),
    tokens: int = 128,
    steps: int = 8,
    rounds: int = 5,
    seed: int = 0,
) -> Costs:
    """Parameters, operations, and the time of prefill and decoding, before and after pruning.

    Random prompts, drawn with `seed`, of `tokens` tokens, or as many as leave room for the
    `steps` in the model's context: the result says how many; `steps` further ones are decoded in
    each round. The two models take turns, after one round that is not counted: on a machine
    that does other things too, only the ratio of a round means anything.
    """
    _check(before, batch_sizes, tokens=tokens, steps=steps, rounds=rounds)
    models, tokens = (before, after), min(tokens, before.cfg.n_ctx - steps)
    generator = torch.Generator().manual_seed(seed)
    device = next(before.original_model.parameters()).device
    drawn = torch.randint(0, before.cfg.d_vocab, (max(batch_sizes), tokens), generator=generator)
    drawn = drawn.to(device)
    prefill = torch.empty(2, len(batch_sizes), rounds)
    decode = torch.empty(2, len(batch_sizes), rounds)
    for at, size in enumerate(batch_sizes):
        for number in range(-1, rounds):
            for side, model in enumerate(models):
                read, further = _timed(model, drawn[:size], steps)
                if number >= 0:
                    prefill[side, at, number], decode[side, at, number] = read, further
    return Costs(
        parameters=torch.tensor([surgery.parameters(model) for model in models]),
        flops=torch.tensor([flops(model, drawn[:1]) for model in models]),
        prefill=prefill,
        decode=decode,
        side=list(_SIDES),
        batch_size=list(batch_sizes),
        tokens=tokens,
        threads=torch.get_num_threads(),
        device=str(device),
        model=after.origin.name,
        model_digest=after.origin.digest,
        model_before=before.origin.name,
        model_before_digest=before.origin.digest,
    )


def _check(
    model: Model, batch_sizes: Sequence[int], *, tokens: int, steps: int, rounds: int
) -> None:
    """Raise for sizes of which nothing could be timed."""
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch_sizes={batch_sizes!r}: give sizes from 1 on, such as (1, 32)")
    for name, number in (("tokens", tokens), ("steps", steps), ("rounds", rounds)):
        if number < 1:
            raise ValueError(f"{name}={number}: there is nothing to time, give 1 or more")
    if steps >= model.cfg.n_ctx:
        raise ValueError(
            f"steps={steps}: {model.origin.name} takes {model.cfg.n_ctx} tokens in all, and some "
            "have to be read before"
        )


@torch.no_grad()
def flops(model: Model, tokens: Int[Tensor, "batch pos"]) -> int:
    """The operations of one forward pass up to the last tokens' logits, in matrix products."""
    with FlopCounterMode(display=False) as counter:
        last_logits(model, tokens)
    return counter.get_total_flops()


def _timed(model: Model, tokens: Int[Tensor, "batch pos"], steps: int) -> tuple[float, float]:
    """Seconds of a prefill, and of each further token."""
    read = _seconds(lambda: last_logits(model, tokens), tokens.device)
    state: dict[str, Any] = {"tokens": tokens, "past_key_values": None}

    def step() -> None:
        logits, cache = model(
            state["tokens"], past_key_values=state["past_key_values"], use_cache=True,
            return_type="logits_and_cache", logits_to_keep=1,
        )  # fmt: skip
        state.update(tokens=logits[:, -1:].argmax(dim=-1), past_key_values=cache)

    step()
    further = _seconds(lambda: [step() for _ in range(steps)], tokens.device)
    return read, further / steps


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    began = perf_counter()
    run()
    _finish(device)
    return perf_counter() - began


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
