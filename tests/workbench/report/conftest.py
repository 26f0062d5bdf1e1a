"""A run and its page, and the words on it."""

import base64
from collections import Counter
from html.parser import HTMLParser

import pytest
import torch

from workbench import report
from workbench.heads import HeadEffects

PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture(scope="session", name="PNG")
def _png():
    return PNG


DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A real image of one dot, for the browser."""


@pytest.fixture(scope="session", name="DOT")
def _dot():
    return DOT


DOCSTRING = """Which heads matter?

Some words before the parts.

Question   What is asked, on a line
           and the next?
Method     Ablate each head.
Compare    The same prompts without.
Read       Negative: it helped.
Caveat     Backups hide -- beware.

    python -m experiments.heads --prompts 3
"""


@pytest.fixture(scope="session", name="DOCSTRING")
def _docstring():
    return DOCSTRING


CONFIG = {"model": "tiny", "prompts": 16, "batch_size": 4, "words": ["a", "b c"], "seed": 0}


@pytest.fixture(scope="session", name="CONFIG")
def _config():
    return CONFIG


RECORD = {
    "experiment": "heads",
    "commit": {"id": "abc123", "dirty": False},
    "models": [{"name": "tiny", "source": "made here", "digest": "beef"}],
    "versions": {"torch": "2.13"},
    "seed": 0,
    "seconds": 1.5,
    "peak_memory_bytes": 2_500_000_000,
    "warnings": [{"kind": "UserWarning", "message": "careful", "where": "a.py:3", "times": 2}],
}


@pytest.fixture(scope="session", name="RECORD")
def _record():
    return RECORD


def effects(*, layers=7, heads=9, **changed):
    generator = torch.Generator().manual_seed(0)
    per_prompt = torch.randn(layers, heads, 16, generator=generator)
    mean = per_prompt.mean(dim=-1)
    fields = {
        "effect": mean,
        "low": mean - 0.5,
        "high": mean + 0.5,
        "p": torch.rand(layers, heads, generator=generator),
        "per_prompt": per_prompt,
        "baseline": torch.ones(16),
        "metric": "logit_diff",
        "unit": "nats",
        "ablation": "zero",
        "task": "ioi",
        "task_digest": "t",
        "model": "tiny",
        "model_digest": "m",
    }
    return HeadEffects(**(fields | changed))


@pytest.fixture(scope="session", name="effects")
def _effects():
    return effects


class Page(HTMLParser):
    """What a page holds, as a reader of HTML sees it."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text, self.rows = Counter(), [], [], []
        self.last = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        self.last = tag

    def handle_data(self, data):
        self.text.append(data)
        if self.last == "td" and self.rows and data.strip():
            self.rows[-1].append(data.strip())


@pytest.fixture(scope="session", name="Page")
def _page():
    return Page


@pytest.fixture
def written(tmp_path):
    def write(result=None, **changed):
        options = {
            "docstring": DOCSTRING,
            "config": CONFIG,
            "record": RECORD,
            "figure": PNG,
        } | changed
        report.write(tmp_path / "report.html", result=result or effects(), **options)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def words_of(source):
    return " ".join(" ".join(Page(source).text).split())


@pytest.fixture(scope="session", name="words_of")
def _words_of():
    return words_of
