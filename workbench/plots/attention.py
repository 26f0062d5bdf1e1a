"""Looking at attention: the pattern of chosen heads over the words of one prompt."""

import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hooks import Activations, Site
from workbench.heads.naming import pairs
from workbench.plots.style import encoded, new_figure, styled, titled

_MOST_DRAWN = 9
_MOST_LETTERS = 14
_PARTS = 1000
"""Attention is written into pages in thousandths."""

_pages = Environment(
    loader=PackageLoader("workbench", "plots"), autoescape=True, undefined=StrictUndefined
)


@dataclass(frozen=True, eq=False, repr=False)
class AttentionView:
    """Where heads attend in one prompt. Shows itself in a notebook; `save` writes page or figure.

    `pattern` rows are the words that look, columns those that are looked at; rows sum to one.
    """

    pattern: Float[np.ndarray, "head query key"]
    heads: list[tuple[int, int]]
    words: list[str]
    title: str = "attention"

    def __repr__(self) -> str:
        heads = ", ".join(f"{layer}.{head}" for layer, head in self.heads)
        return f"<{self.title} of {heads} over {len(self.words)} words>"

    def figure(self, ax: Axes | None = None) -> Figure:
        """A map for each of the first nine heads; the first head alone where `ax` is given."""
        shown = 1 if ax is not None else min(_MOST_DRAWN, len(self.heads))
        title = self.title
        if ax is None and shown < len(self.heads):
            title += f": the first {shown} of {len(self.heads)} heads"
        with styled():
            if ax is not None:
                self._draw(ax, 0)
                return titled(ax, title)
            across = 2 if shown == 4 else min(3, shown)
            down = -(-shown // across)
            each = min(5.0, max(2.2, 1.0 + 0.14 * len(self.words)))
            figure = new_figure(width=0.6 + each * across, height=0.6 + each * down)
            panels = figure.subplots(down, across, squeeze=False).ravel()
            for at, panel in enumerate(panels):
                if at < shown:
                    self._draw(panel, at)
                else:
                    panel.set_axis_off()
            return titled(panels[0], title)

    def fragment(self) -> str:
        """The interactive view as HTML to be put into any page: nothing is fetched from outside.

        Without scripts it is a table of what each word looks at most.
        """
        data = json.dumps(self._data(), ensure_ascii=True, separators=(",", ":"))
        return _pages.get_template("attention.html.j2").render(
            data=data,
            # Not random, so that equal views are equal files; two of them on a page are fine.
            name="attention-" + hashlib.sha256(data.encode()).hexdigest()[:12],
            title=self.title,
            head=_named(self.heads[0]),
            rows=self._most(0),
        )

    def page(self) -> str:
        """The interactive view as a page of its own."""
        title = html.escape(self.title)
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            f"</head><body>\n{self.fragment()}\n</body></html>\n"
        )

    def save(self, path: Path | str) -> None:
        """Write the page as .html, or the figure as .png, .pdf or .svg."""
        path = Path(path)
        if path.suffix.lower() == ".html":
            path.write_text(self.page(), encoding="utf-8")
        else:
            path.write_bytes(encoded(self.figure(), path.suffix.removeprefix(".").lower()))

    def _repr_html_(self) -> str:
        return self.fragment()

    def _draw(self, axes: Axes, at: int) -> None:
        image = axes.imshow(
            self.pattern[at], cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="equal"
        )
        labels = [_shown(word).replace("$", r"\$") for word in self.words]  # no mathematics
        every = max(1, len(labels) // 40)
        places = range(0, len(labels), every)
        axes.set_xticks(places, [labels[one] for one in places], rotation=90)
        axes.set_yticks(places, [labels[one] for one in places])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set(xlabel="is looked at", ylabel="looks")
        axes.set_title(f"head {_named(self.heads[at])}", fontsize=8)
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, aspect=24, pad=0.02)
        bar.outline.set_visible(False)

    def _data(self) -> dict[str, object]:
        rounded = np.rint(self.pattern * _PARTS).astype(int)
        return {
            "words": self.words,
            "heads": [list(head) for head in self.heads],
            "rows": [[row.tolist() for row in one] for one in rounded],
        }

    def _most(self, at: int) -> list[tuple[str, str, str]]:
        """Each word, the one that it looks at most, and how much."""
        most = self.pattern[at].argmax(axis=1)
        return [
            (_shown(word), _shown(self.words[key]), f"{self.pattern[at, row, key]:.0%}")
            for row, (word, key) in enumerate(zip(self.words, most.tolist(), strict=True))
        ]


def attention(
    seen: Activations,
    prompt: int = 0,
    *,
    words: Sequence[str],
    heads: Sequence[tuple[int, int]] | None = None,
    title: str = "attention",
) -> AttentionView:
    """The attention of `heads` (all that were captured, unless named) in one prompt of `seen`.

    `seen` is what `capture(model, prompts, sites.all(model, "pattern"))` gives; `words` are the
    prompt's tokens as strings, `models.words(model, prompts)[prompt]`. Padding is left out.
    """
    layers = sorted(site.layer for site in seen if site.stream == "pattern")
    if not layers:
        have = ", ".join(map(str, sorted(seen))) or "nothing"
        raise ValueError(
            f'no attention pattern was captured, only {have}: capture Site("pattern", layer)'
        )
    if seen.positions is not None:
        raise ValueError("the patterns of some positions only were captured: capture them all")
    if not 0 <= prompt < len(seen.prompts):
        raise ValueError(f"there is no prompt {prompt}: they are 0 to {len(seen.prompts) - 1}")
    length = int(seen.prompts.lengths[prompt])
    if len(words) != length:
        raise ValueError(f"{len(words)} words for the {length} tokens of prompt {prompt}")
    patterns = {
        (layer, head): seen[Site("pattern", layer)][prompt, column]
        for layer in layers
        for column, head in enumerate(seen.heads(Site("pattern", layer)))
    }
    chosen = list(patterns) if heads is None else pairs(heads)
    missing = [head for head in chosen if head not in patterns]
    if missing or not chosen:
        asked = "no head was given"
        if missing:
            asked = f"head {_named(missing[0])} {_why_not(missing[0], seen)}"
        raise ValueError(f"{asked}; there are {_there(list(patterns), seen)}")
    twice = [head for head in chosen if chosen.count(head) > 1]
    if twice:
        raise ValueError(f"head {_named(twice[0])} is given twice: give each head once")
    rows = [_pattern(patterns[head], length) for head in chosen]
    return AttentionView(np.stack(rows), chosen, list(words), title)


def _why_not(head: tuple[int, int], seen: Activations) -> str:
    """Why the pattern of a head is not there."""
    if Site("pattern", head[0]) in seen and seen.kept_heads is not None:
        return "is not in this model, from which heads were removed"
    return "was not captured"


def _there(heads: list[tuple[int, int]], seen: Activations) -> str:
    """The heads that were captured; one by one where others were removed from the model."""
    if seen.kept_heads is None:
        return f"{_named(heads[0])} to {_named(heads[-1])}"
    return ", ".join(map(_named, heads)) or "none, all heads of these layers were removed"


def _pattern(pattern: Float[Tensor, "query key"], length: int) -> Float[np.ndarray, "row column"]:
    return pattern[:length, :length].float().cpu().numpy()


def _named(head: tuple[int, int]) -> str:
    return f"{head[0]}.{head[1]}"


def _shown(word: str) -> str:
    """A token as it can be read: what would be invisible has a sign."""
    text = word.replace("\n", "⏎").replace("\t", "⇥")
    text = text.strip(" ") if text.strip(" ") else "␣"
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
