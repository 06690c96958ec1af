"""A checkpoint folder whose OpenVINO graphs are kept -> a network that runs by them, without torch and transformers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from xenomask.arrays import ImageLike
from xenomask.datasets.photos import as_photo
from xenomask.errors import XenomaskError
from xenomask.files import read_object, sha256
from xenomask.masks import MaskOutput, in_torch
from xenomask.models.config import CARD, CONFIG, WEIGHTS, outlier_last, read_card
from xenomask.models.preprocess import Prepared, Preprocess, input_size, network_array, under
from xenomask.models.runtimes.graph_cache import noted, open_graph
from xenomask.models.runtimes.sessions import Session
from xenomask.models.tta import View
from xenomask.types import Size

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """What a Detector asks of a network, by kept graphs; all else (a module, another size) is asked of `whole`."""

    folder: Path
    sha256: str
    config: Any
    preprocess: Preprocess
    facts: Mapping[str, Any]
    settings: str
    runtime: str = "openvino"
    precision: str = "float32"
    view: View = View()
    device: str = "cpu"
    per_pixel: bool = False
    fallback: str = "torch"  # the runtime of inputs that no graph is kept for
    once: bool = False  # whether a graph is dropped when it was run: a single photo needs each one's memory in turn
    _sessions: dict[tuple[int, ...], Session | None] = field(default_factory=dict, compare=False, repr=False)
    _told: set[tuple[int, ...]] = field(default_factory=set, compare=False, repr=False)

    @cached_property
    def whole(self) -> Any:
        """The Network of the folder, run by torch; XenomaskError where the folder was changed since."""
        from xenomask.models.loading import load

        found = load(self.folder)
        if found.sha256 != self.sha256:
            raise XenomaskError(f"{self.folder} was written over since it was opened: start again")
        return replace(found, facts=self.facts)

    @cached_property
    def _others(self) -> Any:
        """The Network that runs inputs which no graph is kept for."""
        from xenomask.models.runtimes.runtime import with_runtime

        return with_runtime(self.whole, self.fallback)

    def __getstate__(self) -> dict[str, Any]:
        opened = ("whole", "_others")  # as the sessions, they cannot be pickled
        return {k: v for k, v in vars(self).items() if k not in opened} | {"_sessions": {}}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.whole, name)

    @property
    def outlier_class(self) -> bool:
        """Whether its last class is called "outlier" (UNO)."""
        return outlier_last(self.config)

    def prepare(self, image: ImageLike, size_policy: Literal["stored", "native"] = "stored") -> Prepared:
        """`Network.prepare`, whose input here is an array."""
        image = as_photo(image)
        x, used = network_array(under(self.preprocess, size_policy), image)
        return Prepared(x, used, (image.shape[0], image.shape[1]))  # pyright: ignore

    def infer(self, photos: Sequence[Prepared]) -> Any:
        """`Network.infer`: outputs of arrays where a graph is kept, if need be photo by photo; else by `fallback`."""
        xs = [np.asarray(p.x) for p in photos]
        x = np.concatenate(xs) if len(xs) > 1 else xs[0]
        session = self._session(x.shape)
        if session is None and len(xs) > 1 and self._session(xs[0].shape) is not None:
            return [output for p in photos for output in self.infer([p])]
        if session is None:
            import torch

            if self.fallback == "torch" and x.shape not in self._told:
                self._told.add(x.shape)
                log.warning("no graph is kept for inputs of %dx%d: torch runs them; `xenomask warmup --size` builds "
                            "one", x.shape[3], x.shape[2])  # fmt: skip
            return self._others.infer([replace(p, x=torch.from_numpy(x)) for p, x in zip(photos, xs, strict=True)])
        size = (x.shape[2], x.shape[3])
        return [
            MaskOutput(classes, masks, size, p.input_size, p.image_size, self.outlier_class)
            for classes, masks, p in zip(*session(x), photos, strict=True)
        ]

    def _session(self, shape: tuple[int, ...]) -> Session | None:
        if shape not in self._sessions:
            found = noted(self.folder, self.sha256, shape)
            session = None if found is None else open_graph(found[0])
            if self.once and session is not None:
                return session
            self._sessions[shape] = session
        return self._sessions[shape]

    def predict(self, image: ImageLike, size_policy: Literal["stored", "native"] = "stored") -> MaskOutput:
        """`Network.predict`, whose output holds tensors."""
        return in_torch(self.infer([self.prepare(image, size_policy)])[0])

    def __call__(self, x: Any) -> Any:
        return self.whole(x)


def open_kept(
    folder: Path, sizes: Sequence[Size] | None = None, batch: int = 1, *, fallback: str = "torch", once: bool = False,
    digest: str | None = None,
) -> Kept | None:  # fmt: skip
    """The network of a checkpoint folder by its kept graphs; None where a photo of one of the sizes has none.

    Without sizes one graph of any size is enough; `digest` is the weights' SHA-256, where it is known. Whatever is
    wrong with the folder is None too: whoever loads it then says what.
    """
    try:
        if not (folder / CARD).is_file():
            return None
        p, facts = read_card(folder / CARD)
        if p.resample != "opencv":  # resized by torchvision
            return None
        digest, config = digest or sha256(folder / WEIGHTS), read_object(folder / CONFIG)
        if sizes is None:
            found = [noted(folder, digest)]
        else:
            found = [noted(folder, digest, (batch, 3, *size)) for size in {input_size(p, size) for size in sizes}]
        names = {int(k): str(v) for k, v in config["id2label"].items()}
    except (XenomaskError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if None in found or not found[0]:
        return None
    own = SimpleNamespace(id2label=names, model_type=config.get("model_type"), num_queries=config.get("num_queries"))
    return Kept(folder, digest, own, p, facts, found[0][1], fallback=fallback, once=once)
