"""What each layer would answer if the model stopped there (logit lens, nostalgebraist 2020)."""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.tools.analysis import logit_readout

from hooks import HookedModel, Site, capture, sites
from workbench import statistics
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels
from workbench.tasks.task import ABSENT


@dataclass(frozen=True, eq=False)
class LogitLens(Result):
    """Log-probability of the answer if the model stopped after each layer. Higher is surer.

    Depth 0 is the embedding, depth n what leaves block n - 1; the last one is the model's own.
    """

    logprob: Float[Tensor, " depth"] = field(metadata={"means": "mean log p(answer)"})
    low: Float[Tensor, " depth"] = field(metadata={"means": "lower 95 % bound of logprob"})
    high: Float[Tensor, " depth"] = field(metadata={"means": "upper 95 % bound of logprob"})
    per_prompt: Float[Tensor, "depth batch"] = field(metadata={"means": "log p(answer)"})
    foil: Float[Tensor, "depth batch"] = field(metadata={"means": "log p(foil)"})
    rank: Int[Tensor, "depth batch"] = field(metadata={"means": "rank of the answer, 0 is first"})
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def first_right(self) -> int | None:
        """The first depth from which on the answer beats the foil for most prompts; None: never."""
        ahead = (self.per_prompt > self.foil).float().mean(dim=1) > 0.5
        for depth in range(len(ahead)):
            if bool(ahead[depth:].all()):
                return depth
        return None

    def sentence(self) -> str:
        """What was found, in a sentence."""
        at = self.first_right()
        when = "never stays ahead" if at is None else f"stays ahead of the foil from depth {at} on"
        final = f"{float(self.logprob[-1]):.2f} [{float(self.low[-1]):.2f}, "
        final += f"{float(self.high[-1]):.2f}] {self.unit}"
        return (
            f"Read through the final norm, the answer of {self.task} {when} "
            f"(of {len(self.logprob) - 1} layers of {self.model}); in the end its "
            f"log-probability is {final}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, float]:
        """The final log-probability with its bounds."""
        names = ("logprob", "low", "high")
        return {name: float(getattr(self, name)[-1]) for name in names}


def logit_lens(model: HookedModel, task: Task, *, seed: int = 0) -> LogitLens:
    """Log p(answer) at the last position of the clean prompts after every layer.

    Uses TransformerLens's readout, which goes through the model's own norm, unembedding and
    soft cap, so the last depth is the model's own log-probability.
    """
    wanted = [Site("resid_pre", 0), *sites.all(model, "resid_post")]
    seen = capture(model, task.clean, wanted, positions=task.clean.last)
    stack = torch.stack([rearrange(seen[site], "batch 1 d -> batch d") for site in wanted])
    answer, rank = _read(model, stack, task.answer)
    foil, _ = _read(model, stack, task.foil)
    logprob, low, high = statistics.bounds(answer, seed=seed)
    return LogitLens(
        logprob=logprob.float(),
        low=low.float(),
        high=high.float(),
        per_prompt=answer,
        foil=foil,
        rank=rank,
        unit="nats",
        **labels(model, task, unsolved=""),
    )


def _read(
    model: HookedModel, stack: Float[Tensor, "depth batch d_model"], ids: Int[Tensor, "batch ids"]
) -> tuple[Float[Tensor, "depth batch"], Int[Tensor, "depth batch"]]:
    """Log-probability of a set of ids, and the best rank among them."""
    found, ranks = [], []
    for column in ids.to(stack.device).T:
        targets = column.clamp(min=0).expand(stack.shape[:2])
        readout = logit_readout(model, stack, targets=targets, return_type="log_probs")
        absent = column == ABSENT
        found.append(readout.values[..., 0].masked_fill(absent, -torch.inf))
        assert readout.target_ranks is not None
        ranks.append(readout.target_ranks[..., 0].masked_fill(absent, model.cfg.d_vocab))
    logprobs = torch.stack(found).logsumexp(dim=0)
    return logprobs.float().cpu(), torch.stack(ranks).amin(dim=0).long().cpu()
