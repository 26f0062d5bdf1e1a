"""Whatever is edited, read and padded: replay gives what a full forward pass gives."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hooks import Edit, Prompts, Site, capture, edits
from hooks.replay import Reads
from workbench.models import twins

CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5}
VOCABULARY = 67


def error(found: Tensor, expected: Tensor, real: Tensor, base: Tensor) -> float:
    """The largest difference where `real`, as a share of the largest logit, edited or not."""
    assert found.shape == expected.shape
    assert torch.isfinite(expected[real]).all()
    scale = torch.maximum(expected[real].abs().max(), base[real].abs().max())
    return float((found - expected)[real].abs().max() / scale)


def rows_of(length: int, lengths: Tensor, reads: Reads) -> Tensor:
    """(batch, pos, column): which of the logits mean something."""
    if reads.rows == "last":
        at = torch.ones(len(lengths), 1, dtype=torch.bool)
    else:
        at = torch.arange(length) < lengths[:, None]
    width = VOCABULARY if reads.columns is None else reads.columns.shape[1]
    there = torch.ones(1, 1, width, dtype=torch.bool)
    if reads.columns is not None:
        there = (reads.columns >= 0)[:, None]
    return at[..., None] & there


def tokens_of(batch: int, length: int, seed: int) -> Tensor:
    return torch.randint(3, 60, (batch, length), generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Case:
    """Prompts `here`, edits made of what flows `there`, and what is read, in plain numbers."""

    lengths: tuple[int, ...]
    same: tuple[int, ...]  # so many tokens of each prompt are the same there
    seed: int
    cells: tuple[tuple["Change", ...], ...]
    rows: str
    columns: tuple[tuple[int, ...], ...] | None

    @property
    def here(self) -> Prompts:
        tokens = tokens_of(len(self.lengths), max(self.lengths), self.seed)
        return Prompts(tokens, torch.tensor(self.lengths))

    @property
    def there(self) -> Prompts:
        here = self.here
        others = tokens_of(*here.tokens.shape, self.seed + 100)
        at = torch.arange(here.tokens.shape[1])
        other = (at >= torch.tensor(self.same)[:, None]) & here.mask.bool()
        return Prompts(torch.where(other, others, here.tokens), here.lengths)

    @property
    def reads(self) -> Reads:
        return Reads(self.rows, None if self.columns is None else torch.tensor(self.columns))


@dataclass(frozen=True)
class Change:
    """One edit of one site, in plain numbers; edits of the same site are made in order."""

    stream: str
    layer: int
    kind: str
    positions: int | tuple[int, ...] | None
    each: bool  # whether the positions are one for each prompt
    members: tuple[int, ...] | None  # heads or neurons
    seed: int

    @property
    def site(self) -> Site:
        return Site(self.stream, self.layer)

    def edit(self, source: Tensor) -> Edit:
        """The edit; `source` is what flows at its site in other prompts."""
        generator = torch.Generator().manual_seed(self.seed)

        def some(shape) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(source)

        chosen: dict = {}
        if self.positions is not None:
            at = self.positions
            chosen["positions"] = torch.tensor(at) if self.each else at
        if self.members is not None:
            axis = "head" if "head" in self.site.axes else "neuron"
            size = source.shape[self.site.axes.index(axis)]
            chosen[f"{axis}s"] = sorted({member % size for member in self.members})
        axis = 2 if "query" in self.site.axes else 1
        features, strength = source.shape[2:], (self.seed % 3 - 1) / 2
        if self.kind == "project_out":
            chosen.pop("neurons", None)
            return edits.project_out(some((1 + self.seed % 2, source.shape[-1])), **chosen)
        if self.kind == "resample" and len(source) > 1:
            return edits.resample(source, generator=generator, **chosen)
        if self.kind == "single" and self.positions is not None:
            return edits.replace(source.narrow(axis, source.shape[axis] - 1, 1), **chosen)
        return {
            "zero": lambda: edits.zero(**chosen),
            "scale": lambda: edits.scale((self.seed % 4) / 2, **chosen),
            "mean": lambda: edits.mean(some(features), **chosen),
            "mean of position": lambda: edits.mean(some(source.shape[1:]), **chosen),
            "add": lambda: edits.add(some(features), strength=strength, **chosen),
            "add row": lambda: edits.add(some((1, *source.shape[1:])), **chosen),
            "add all": lambda: edits.add(some(source.shape), **chosen),
        }.get(self.kind, lambda: edits.replace(source, **chosen))()


Place = tuple[str, int, tuple[str, ...]]  # stream, layer, axes

VECTORS = ("zero", "scale", "replace", "single", "resample", "add", "add row", "add all", "mean",
           "mean of position", "project_out")  # fmt: skip
PATTERNS = ("zero", "scale", "replace", "single", "resample", "add row", "add all")


@st.composite
def changes(draw, places: list[Place], lengths: tuple[int, ...]):
    stream, layer, axes = draw(st.sampled_from(places))
    kind = draw(st.sampled_from(PATTERNS if "query" in axes else VECTORS))
    spread = draw(st.sampled_from(["all", "one", "list", "each"]))
    shortest = st.integers(0, min(lengths) - 1)
    positions = {
        "all": st.none(),
        "one": shortest,
        "list": st.lists(shortest, min_size=1, max_size=3).map(tuple),
        "each": st.tuples(*(st.integers(0, length - 1) for length in lengths)),
    }[spread]
    members = None
    if {"head", "neuron"} & set(axes) and draw(st.booleans()):
        members = draw(st.lists(st.integers(0, 9), min_size=1, max_size=2).map(tuple))
    return Change(
        stream, layer, kind, draw(positions), spread == "each", members, draw(st.integers(0, 99)),
    )  # fmt: skip


@st.composite
def cases(draw, places: list[Place]):
    batch, length = draw(st.integers(1, 4)), draw(st.integers(2, 8))
    lengths = [length] * batch
    if draw(st.booleans()):
        lengths[1:] = [draw(st.integers(1, length)) for _ in lengths[1:]]
    cell = st.lists(changes(places, tuple(lengths)), min_size=1, max_size=4).map(tuple)
    columns = None
    if draw(st.booleans()):
        ids = st.lists(st.integers(-1, VOCABULARY - 1), min_size=2, max_size=2)
        columns = tuple((0, *draw(ids)) for _ in lengths)
    return Case(
        tuple(lengths), tuple(draw(st.integers(0, n)) for n in lengths), draw(st.integers(0, 99)),
        tuple(draw(st.lists(cell, min_size=2, max_size=6))),
        draw(st.sampled_from(["last", "all"])), columns,
    )  # fmt: skip


def built(cell: tuple[Change, ...], sources) -> dict[Site, list[Edit] | Edit]:
    """The cell as a caller would write it."""
    found: dict[Site, list[Edit]] = {}
    for change in cell:
        found.setdefault(change.site, []).append(change.edit(sources[change.site]))
    return {site: several if len(several) > 1 else several[0] for site, several in found.items()}


def writable(model) -> list[Site]:
    """Every place at which this model can be both read and edited."""
    access = model.access
    alone = [Site(stream) for stream in ("embed", "final") if stream in access.writable]
    streams = sorted((access.writable & access.readable) - {"embed", "final"})
    return [*alone, *(Site(s, layer) for s in streams for layer in range(model.cfg.n_layers))]


def places(model) -> list[Place]:
    return [(site.stream, site.layer, site.axes) for site in writable(model)]


def check(model, case: Case, naive, replayed) -> None:
    """Every cell of the case by replay and in full."""
    here, reads = case.here, case.reads
    sites = [change.site for cell in case.cells for change in cell]
    seen = capture(model, case.there, sites, not_finite="keep")
    cells = [built(cell, {site: seen[site] for site in sites}) for cell in case.cells]
    found = replayed(model, here, cells, reads)
    real = rows_of(here.tokens.shape[1], here.lengths, reads)
    close = CLOSE[found.base.dtype]
    base = naive(model, here, None, reads)
    assert error(found.base, base, real, base) <= close
    for cell, said, logits in zip(cells, case.cells, found.logits, strict=True):
        assert error(logits, naive(model, here, cell, reads), real, base) <= close, said
    assert found.sent == found.plan.block_tokens


QUICK = settings(
    deadline=None, max_examples=6, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)


@pytest.mark.parametrize("architecture", twins.ARCHITECTURES)
@QUICK
@given(data=st.data())
def test_replay_is_a_full_forward_pass(twin, naive, replayed, architecture, data):
    model = twin(architecture)
    check(model, data.draw(cases(places(model))), naive, replayed)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", twins.ARCHITECTURES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_replay_is_a_full_forward_pass_in_many_more_cases(
    twin, naive, replayed, architecture, data
):
    model = twin(architecture)
    check(model, data.draw(cases(places(model))), naive, replayed)
