"""What is said when the disk does not give back what was written."""

from collections.abc import Iterable, Mapping
from pathlib import Path


class Damaged(Exception):  # noqa: N818 - the name says what was found
    """Files of a shelf are missing or hold other bytes than were written.

    `keys` are all that were asked for and lie in them; `shelf.forget(error.keys)` lets them be
    computed again, and them alone.
    """

    def __init__(self, files: Mapping[Path, str], keys: Iterable[str], *, advice: str) -> None:
        self.files = tuple(sorted(files))
        self.keys = frozenset(keys)
        told = "; ".join(f"{path}: {why}" for path, why in sorted(files.items()))
        super().__init__(f"{listed(self.keys)} cannot be read as written. {told}. {advice}")


def of_blobs(files: Mapping[Path, str], keys: Iterable[str]) -> Damaged:
    """Some blobs are not what they were; the others are not touched by it."""
    advice = "Bring the files back from a copy, or forget these keys and compute them again"
    return Damaged(files, keys, advice=advice)


def of_index(path: Path, why: str) -> Damaged:
    """The index is not what it was."""
    advice = "Remove this file and open the shelf again: it is made anew from the whole blobs"
    return Damaged({path: why}, [], advice=advice)


def listed(keys: Iterable[str]) -> str:
    """A few of the keys, and how many there are."""
    shown = sorted(keys)
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return f"{len(shown)} keys ({', '.join(shown[:3])}{more})" if shown else "the shelf"
