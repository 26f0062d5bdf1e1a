"""An atlas of neurons to browse: HTML that needs nothing else, for a page of its own or a report.

An index that can be searched and sorted, and a page for each chosen neuron: where it fires, its
histogram, what it writes, what its loss costs, its explanation and how well that predicts. All
text from corpora is escaped: nothing in it can become part of the page.
"""

import math
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from workbench.neurons import Atlas

_COLUMNS = ("neuron", "fires at", "promotes", "kinds of token", "score", "others' score", "loss")

_STYLE = """
.atlas { font: 14px/1.45 system-ui, sans-serif; color: #222; }
.atlas input { font: inherit; padding: .3em .5em; width: 22em; max-width: 100%; }
.atlas .index { overflow-x: auto; }
.atlas table { border-collapse: collapse; margin: .6em 0; width: 100%; font-size: 12px; }
.atlas th { cursor: pointer; border-bottom: 1px solid #6b6b6b; }
.atlas th, .atlas td { padding: .2em .6em .2em 0; vertical-align: top; text-align: left; }
.atlas td:nth-child(n+4), .atlas th:nth-child(n+4) { text-align: right; }
.atlas td code { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 11px; }
.atlas section { border-top: 1px solid #e3e3e3; padding: .4em 0; }
.atlas mark { background: #f4d9a8; }
.atlas .context { font-family: ui-monospace, monospace; white-space: pre-wrap; font-size: 12px; }
.atlas [hidden] { display: none; }
"""

_SCRIPT = """
(function () {
  const root = document.getElementById("ID");
  const rows = Array.from(root.querySelectorAll("tbody tr"));
  root.querySelector("input").addEventListener("input", function (event) {
    const wanted = event.target.value.toLowerCase();
    for (const row of rows) {
      const page = document.getElementById(row.dataset.page);
      const miss = !(row.textContent + page.textContent).toLowerCase().includes(wanted);
      row.hidden = miss; page.hidden = miss;
    }
  });
  root.querySelectorAll("th").forEach(function (head, at) {
    let turn = 1;
    head.addEventListener("click", function () {
      turn = -turn;
      const key = (row) => row.children[at].dataset.key;
      const numbers = rows.every((row) => !isNaN(parseFloat(key(row))));
      rows.sort((a, b) => turn * (numbers ? key(a) - key(b) : key(a).localeCompare(key(b))));
      rows.forEach((row) => row.parentNode.appendChild(row));
    });
  });
})();
"""


def atlas_fragment(result: Atlas) -> str:
    """The atlas as HTML to put into any page."""
    name = f"atlas-{sha256(f'{result.task_digest} {result.model}'.encode()).hexdigest()[:12]}"
    heads = "".join(f"<th>{escape(one)}</th>" for one in _COLUMNS)
    rows = "".join(_row(result, at, name) for at in range(len(result.neurons)))
    pages = "".join(_page(result, at, name) for at in range(len(result.neurons)))
    return (
        f'<div class="atlas" id="{name}"><style>{_STYLE}</style>'
        f"<p>{escape(result.sentence())}</p>"
        '<p><input type="search" placeholder="search neurons, tokens, contexts" '
        'aria-label="search"></p>'
        f'<div class="index"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div>{pages}"
        f"<script>{_SCRIPT.replace('ID', name)}</script></div>"
    )


def atlas_page(result: Atlas) -> str:
    """The atlas as a whole HTML page."""
    title = escape(f"Neurons of {result.model}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title}</h1>{atlas_fragment(result)}</body></html>"
    )


def save_atlas(result: Atlas, path: Path | str) -> None:
    """Write the atlas as one self-contained HTML file."""
    Path(path).write_text(atlas_page(result), encoding="utf-8", errors="replace")


def _row(result: Atlas, at: int, name: str) -> str:
    one = result.neurons[at]
    link = f'<a href="#{name}-{at}">{one}</a>'
    numbers = (result.kinds[at], result.score[at], result.null[at], result.loss[at])
    cells = [(f"{one.layer * 1_000_000 + one.neuron}", link)]
    for some in (result.tokens[at], result.promoted[at]):
        cells.append((escape(" ".join(some[:4])), _words(some[:4])))
    cells += [(_key(float(value)), _number(float(value))) for value in numbers]
    body = "".join(f'<td data-key="{key}">{shown}</td>' for key, shown in cells)
    return f'<tr data-page="{name}-{at}">{body}</tr>'


def _page(result: Atlas, at: int, name: str) -> str:
    contexts = "".join(f'<div class="context">{_context(one)}</div>' for one in result.contexts[at])
    return (
        f'<section id="{name}-{at}"><h3>Neuron {result.neurons[at]}</h3>'
        f"<p>{escape(result.explanation[at])}<br>score {_number(float(result.score[at]))}, others' "
        f"{_number(float(result.null[at]))}; detection {_number(float(result.detection[at]))}, "
        f"fuzzing {_number(float(result.fuzzing[at]))} (0.5: chance)<br>"
        f"loss {_loss(result, at)}</p>"
        f"<p>fires at {_words(result.tokens[at])}<br>promotes {_words(result.promoted[at])}<br>"
        f"suppresses {_words(result.suppressed[at])}</p>"
        f"{_histogram(result, at)}{contexts}</section>"
    )


def _context(line: str) -> str:
    before, opened, rest = line.partition("«")
    token, closed, after = rest.partition("»")
    if not opened or not closed:
        return escape(line)
    return f"{escape(before)}<mark>{escape(token) or ' '}</mark>{escape(after)}"


def _histogram(result: Atlas, at: int) -> str:
    """The counts as bars, on a logarithmic scale; zero is where the line stands."""
    counts = np.log1p(result.histogram[at].numpy().astype(float))
    tall = 40 * counts / max(float(counts.max()), 1e-9)
    bars = "".join(
        f'<rect x="{4 * n}" y="{40 - height:.1f}" width="3" height="{height:.1f}" fill="#2166ac"/>'
        for n, height in enumerate(tall)
    )
    reach = float(result.reach[at])
    return (
        f'<svg width="256" height="42" role="img" aria-label="log counts from {-reach:g} to '
        f'{reach:g}">{bars}<line x1="127.5" x2="127.5" y1="0" y2="42" stroke="#6b6b6b"/></svg> '
        f"<small>log counts, {-reach:g} to {reach:g}</small>"
    )


def _loss(result: Atlas, at: int) -> str:
    """What ablation changes, with its bounds; a dash where it was not asked."""
    loss, low, high = (float(x[at]) for x in (result.loss, result.loss_low, result.loss_high))
    if math.isnan(loss):
        return _number(loss)
    known = f"{loss:+.4f} [{low:+.4f}, {high:+.4f}] {escape(result.unit)}"
    return f"{known} when mean-ablated (95 % bounds; below 0: it helps)"


def _words(tokens: list[str]) -> str:
    return " ".join(f"<code>{escape(repr(token))}</code>" for token in tokens)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.3f}"


def _key(value: Any) -> str:
    return "-1e9" if math.isnan(value) else repr(value)
