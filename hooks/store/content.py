"""What a store holds, said so exactly that two stores with the same digest hold the same."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any, Literal, get_args

import torch
from jaxtyping import UInt8
from torch import Tensor

from hooks.sites import HookedModel, Site, check_readable
from hooks.store.survey import Survey, bytes_of

Precision = Literal["float32", "float16", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_LIBRARIES = ("torch", "transformers", "transformer-lens", "interpretability-workbench")
_FORMAT = 1  # another number whenever the same content would be written differently
_ABOUT = "about"


@dataclass(frozen=True, eq=False)
class Content:
    """Which activations of which model on which corpus, and how they lie on the shelf.

    `said` is all that the activations depend on; `digest`, its SHA-256, is in every key.
    """

    said: Mapping[str, Any]
    survey: Survey
    shapes: Mapping[Site, tuple[int, ...]]  # of one activation; -1 for keys of an attention pattern

    def __str__(self) -> str:
        sites = ", ".join(map(str, self.sites[:3])) + (" ..." if len(self.sites) > 3 else "")
        return (
            f"{self.survey.tokens:,} tokens of {len(self.survey.lengths):,} documents at "
            f"{len(self.sites)} sites ({sites}) as {self.said['dtype']}, key {self.said['key']!r}"
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that the activations depend on."""
        return digest_of(self.said)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the activations are from, sorted."""
        return tuple(Site(stream, layer) for stream, layer in self.said["sites"])

    @property
    def dtype(self) -> torch.dtype:
        """The precision on disk."""
        return getattr(torch, self.said["dtype"])

    def keys(self) -> list[str]:
        """The key of every batch, in order."""
        return [self.key(number) for number in range(len(self.survey.documents))]

    def key(self, batch: int) -> str:
        """The key of one batch."""
        return f"{self.digest}/{batch:08d}"

    def to_item(self) -> tuple[str, dict[str, Tensor]]:
        """The key and the tensors under which a shelf keeps this."""
        shapes = [[site.stream, site.layer, *shape] for site, shape in self.shapes.items()]
        item = {
            "said": _as_bytes({"said": self.said, "shapes": shapes}),
            "digests": _as_bytes(self.survey.digests),
            "lengths": self.survey.lengths,
            "documents": self.survey.documents,
            "widths": self.survey.widths,
        }
        if self.survey.chosen is not None:
            item["chosen"] = self.survey.chosen
        return about(self.digest), item

    @classmethod
    def of_item(cls, item: Mapping[str, Tensor]) -> "Content":
        """What `to_item` gave."""
        told = json.loads(item["said"].numpy().tobytes())
        digests = tuple(json.loads(item["digests"].numpy().tobytes()))
        survey = Survey(
            item["lengths"], item["documents"], item["widths"], item.get("chosen"), digests
        )
        shapes = {Site(stream, layer): tuple(shape) for stream, layer, *shape in told["shapes"]}
        return cls(told["said"], survey, shapes)


def about(digest: str) -> str:
    """The key of the description of the store with this digest."""
    return f"{digest}/{_ABOUT}"


def digests_on(keys: Iterable[str]) -> list[str]:
    """The digests of the stores whose descriptions are among these keys."""
    return [key.removesuffix(f"/{_ABOUT}") for key in keys if key.endswith(f"/{_ABOUT}")]


def describe(
    model: HookedModel, survey: Survey, sites: Iterable[Site], *, key: str, dtype: Any
) -> dict[str, Any]:
    """All that the activations depend on."""
    _check_untouched(model)
    wanted = sorted(dict.fromkeys(sites))
    if not wanted:
        raise ValueError("nothing to store: name at least one site")
    for site in wanted:
        check_readable(model, site)
    precision = str(dtype).removeprefix("torch.")
    if precision not in PRECISIONS:
        raise ValueError(f"dtype {precision!r} is not stored; there are {', '.join(PRECISIONS)}")
    chosen = "all" if survey.chosen is None else hashlib.sha256(bytes_of(survey.chosen)).hexdigest()
    return {
        "format": _FORMAT,
        "weights": str(model.origin.digest),
        "weights now": _weights(model),
        "config": _config(model),
        "tokenizer": str(getattr(model.origin, "tokenizer", "")),
        "key": key,
        "tokens": digest_of(survey.digests),
        "positions": chosen,
        "sites": [[site.stream, site.layer] for site in wanted],
        "dtype": precision,
        "versions": {name: _version(name) for name in _LIBRARIES},
    }


def digest_of(said: Any) -> str:
    """SHA-256 of the value as JSON, in the order of its keys."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what two descriptions differ."""
    return [name for name in one if one[name] != other.get(name)]


def _weights(model: HookedModel) -> str:
    """SHA-256 of the weights as they are now, whatever was done to them since they were loaded."""
    named = sorted(model.original_model.state_dict().items())
    # A bridge names most weights several times; each is read once.
    once = {_place(weight): weight for _, weight in named}
    with ThreadPoolExecutor(2) as pool:
        digests = dict(zip(once, pool.map(_weight, once.values()), strict=True))
    return digest_of([[name, digests[_place(weight)]] for name, weight in named])


def _place(weight: Tensor) -> tuple[Any, ...]:
    return weight.data_ptr(), weight.dtype, tuple(weight.shape), weight.stride()


def _weight(weight: Tensor) -> str:
    digest = hashlib.sha256(bytes_of(weight)).hexdigest()
    return f"{weight.dtype} {tuple(weight.shape)} {digest}"


def _config(model: HookedModel) -> str:
    """SHA-256 of how the model is built: the same weights can be read in several ways."""
    config: Any = getattr(model.original_model, "config", None) or model.cfg
    fields = {**config.to_dict()} if hasattr(config, "to_dict") else {}
    for place in ("_name_or_path", "device"):
        fields.pop(place, None)
    return digest_of({name: str(value) for name, value in fields.items()})


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _check_untouched(model: HookedModel) -> None:
    """An open edit would change the activations, and no key would tell."""
    points: Mapping[str, Any] = getattr(model, "hook_dict", {})
    busy = [name for name, point in points.items() if getattr(point, "fwd_hooks", None)]
    if busy:
        raise ValueError(
            f"this model is being edited or read at {busy[0]}, which no key of a store tells: "
            "leave the `with` block, or remove the hook with model.reset_hooks()"
        )


def _as_bytes(value: Any) -> UInt8[Tensor, " byte"]:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
