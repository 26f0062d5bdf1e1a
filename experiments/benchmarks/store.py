"""What does keeping activations cost, beyond capturing them?

Stores `resid_post` of all layers, and compares, in one process and in turn, with
    capture          the same batches captured and dropped
    write            counted, planned, captured, written, checked that they are on disk
The ratio is also given in processor time, which other programs disturb less. Then a writer is
killed (SIGKILL) in the middle, another goes on, and every byte is compared with what a writer
leaves that nobody disturbed. Also how long reading takes, and how long it is until a small item
is on disk to stay (its file and its row in the index, both fsynced).

    python -m experiments.benchmarks.store
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro

from experiments.benchmarks import stopwatch
from hooks import Prompts, capture, sites, store
from workbench import models


@dataclass(frozen=True)
class Config:
    """The measurement that the README reports."""

    model: str = "smollm2-135m"
    documents: int = 160
    tokens: int = 125  # of each document; 20,000 in all
    batch: int = 16  # documents
    dtype: str = "float16"
    rounds: int = 3
    folder: str = ""  # where to write; none given: the system's folder for temporary files
    seed: int = 0


@dataclass(frozen=True)
class Corpus:
    """Random tokens, the same whenever they are gone through."""

    config: Config
    vocabulary: int

    def __iter__(self) -> Iterator[Prompts]:
        rng = torch.Generator().manual_seed(self.config.seed)
        size = (self.config.documents, self.config.tokens)
        tokens = torch.randint(100, self.vocabulary - 1, size, generator=rng)
        yield from Prompts.of(tokens).batches(self.config.batch)


def write(config: Config, path: Path) -> store.Store:
    """What is measured; also run by the process that is killed."""
    model = models.load(config.model)
    return _write(model, config, path)


def _write(model: models.Model, config: Config, path: Path) -> store.Store:
    corpus = Corpus(config, model.cfg.d_vocab)
    wanted = sites.all(model, "resid_post")
    return store.write(model, corpus, wanted, path, key="benchmark", dtype=config.dtype)


def resumes_identically(config: Config, folder: Path) -> bool:
    """Whether a writer that was killed leaves, once another has gone on, the same bytes."""
    killed = folder / "killed"
    program = (
        "from pathlib import Path; from experiments.benchmarks.store import Config, write; "
        f"write({config!r}, Path({str(killed)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    while len(list((killed / "blobs").glob("*"))) < 3 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the writer ended before it was killed"
    write(config, killed)
    write(config, folder / "whole")
    return _bytes(killed) == _bytes(folder / "whole")


def _bytes(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / "blobs").iterdir()}


def _seconds(path: Path) -> dict[str, float]:
    """How long it takes to read what was written, in some ways."""
    held = store.open(path)
    layer = held.sites[len(held.sites) // 2]
    taken = {}
    for name, read in {
        "check": held.check,
        "map": lambda: [rows[layer].sum() for rows in held.batches(layer)],
        "shuffled": lambda: [rows[layer] for rows in held.shuffled(layer, size=512, seed=0)],
    }.items():
        start = time.perf_counter()
        read()
        taken[f"{name}_seconds"] = round(time.perf_counter() - start, 3)
    return taken


def _commit(folder: Path, *, items: int = 50) -> float:
    """Milliseconds that it takes until a small item is on disk to stay, in the middle."""
    shelf, taken = store.Shelf.open(folder), []
    for number in range(items):
        start = time.perf_counter()
        shelf.put({f"item {number}": {"value": torch.full((1024,), float(number))}})
        taken.append(1000 * (time.perf_counter() - start))
    return round(median(taken), 2)


def main(config: Config) -> None:
    """Measure, and print one JSON object as the last line."""
    print(json.dumps(measured(config)))


def measured(config: Config) -> dict[str, Any]:
    """The figures, after a line for each way."""
    model = models.load(config.model)
    corpus, wanted = Corpus(config, model.cfg.d_vocab), sites.all(model, "resid_post")
    folder = Path(tempfile.mkdtemp(dir=config.folder or None))

    work: dict[str, list[float]] = {"capture": [], "write": []}  # seconds of all threads

    def captured() -> None:
        start = time.process_time()
        for batch in corpus:
            capture(model, batch, wanted)
        work["capture"].append(time.process_time() - start)

    def written() -> None:
        shutil.rmtree(folder / "it", ignore_errors=True)
        start = time.process_time()
        _write(model, config, folder / "it")
        work["write"].append(time.process_time() - start)

    try:
        taken = stopwatch.alternate({"capture": captured, "write": written}, rounds=config.rounds)
        for name, seconds in taken.items():
            spread = f"[{min(seconds):.2f}, {max(seconds):.2f}]"
            print(f"{name:<16} {median(seconds):.2f} s {spread}, {len(seconds)} rounds")
        overhead = stopwatch.ratio(taken, "write", "capture")
        in_work = stopwatch.ratio(work, "write", "capture")
        size = sum(file.stat().st_size for file in (folder / "it" / "blobs").iterdir())
        reading = _seconds(folder / "it")
        commit = _commit(folder / "commits")
        few = replace(config, documents=24, tokens=32, batch=4)
        identical = resumes_identically(few, folder)
    finally:
        shutil.rmtree(folder)
    return {
        "store_write_overhead": overhead[0],
        "store_write_overhead_range": overhead[1:],
        "processor_time_ratio": in_work[0],
        "resume_identical": identical,
        "gigabytes": round(size / 1e9, 3),
        **reading,
        "commit_milliseconds": commit,
        "peak_gb": stopwatch.peak_gb(),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main(tyro.cli(Config))
