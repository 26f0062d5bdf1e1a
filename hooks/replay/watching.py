"""What flows through chosen sites in every cell, shown as it is computed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from hooks.sites import HookedModel, Site, check_readable

_BETWEEN_BLOCKS = ("embed", "resid_post", "final")


class EverythingSeen(Exception):  # noqa: N818 - a signal, not an error
    """Ends the pass through a block in which nobody reads anything more."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A site's activation in some rows: which cell and prompt each is, from position `start` on.

    It is the model's own tensor: copy what is to be kept, and write into nothing.
    """

    site: Site
    cells: Int[Tensor, " row"]
    prompts: Int[Tensor, " row"]
    start: int
    activation: Float[Tensor, "row ..."]


@dataclass(frozen=True, eq=False)
class Watch:
    """Which sites are read, and who is shown what flows there, after the cell's edits."""

    sites: Sequence[Site]
    show: Callable[[Seen], None]

    @classmethod
    def of(cls, model: HookedModel, sites: Iterable[Site], show: Callable[[Seen], None]) -> "Watch":
        """A watch over sites that lie in blocks; others are refused."""
        wanted = sorted(set(sites), key=lambda site: site.layer)
        for site in wanted:
            check_readable(model, site)
            if site.stream in _BETWEEN_BLOCKS:
                raise ValueError(f"{site} lies in no block: read resid_pre, or a site inside one")
        if not wanted:
            raise ValueError("nothing to read: name at least one site")
        return cls(wanted, show)

    @property
    def last(self) -> int:
        """The last block that has to run."""
        return self.sites[-1].layer

    def hooks(
        self, layer: int, cells: Tensor, prompts: Tensor, start: int
    ) -> list[tuple[str, Any]]:
        """Readers for one call of a block, with the cell and the prompt of each of its rows."""
        wanted = [site for site in self.sites if site.layer == layer]
        missing = set(wanted)

        # The site is bound here: TransformerLens reports an alias's target as `hook.name`.
        def reader(site: Site) -> Callable[[Tensor, object], None]:
            def read(activation: Tensor, hook: object) -> None:
                self.show(Seen(site, cells, prompts, start, activation))
                missing.discard(site)
                if layer == self.last and not missing:
                    raise EverythingSeen

            return read

        return [(site.hook_name, reader(site)) for site in wanted]
