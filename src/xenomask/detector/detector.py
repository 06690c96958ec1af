"""Detector: photo -> ScoreMap."""

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xenomask.arrays import ImageLike
from xenomask.datasets.photos import as_photo
from xenomask.detector import hub
from xenomask.detector.find import find
from xenomask.detector.folder import (
    FILE,
    check_own,
    describe_members,
    fingerprint,
    read_refine,
    read_table,
    read_thresholds,
    scale_of,
    write_folder,
)
from xenomask.detector.fuse import check_weights, has_masks, refined
from xenomask.detector.member import Member, class_names, plain
from xenomask.detector.nearest import Nearest, class_reader
from xenomask.detector.parts import check_files, tell_unnamed
from xenomask.detector.prediction import predict
from xenomask.errors import XenomaskError, unknown
from xenomask.masks import MaskOutput, PixelOutput, class_count
from xenomask.models.config import MAHALANOBIS
from xenomask.models.preprocess import Prepared
from xenomask.models.runtimes.kept import open_kept
from xenomask.models.runtimes.sessions import RUNTIMES
from xenomask.models.tta import tta_views
from xenomask.objects.ignore import IgnoreRegion, read_region
from xenomask.queries import read_queries, without_frame
from xenomask.refine import Refinement, parse_refinement
from xenomask.scores import Score, add_score, check_classes, get_score
from xenomask.scores.backend import choose
from xenomask.shapes import Float32, UInt8
from xenomask.types import QuerySet, ScoreMap, Size

if TYPE_CHECKING:  # few detectors have one
    from xenomask.metrics.calibration import Calibration

log = logging.getLogger(__name__)
# What a network of the Hub that brings no score is scored with: RbA needs no query sets (see known.py).
HUB_SCORE = "rba"
UNREFINED = "unrefined"  # before the names of thresholds for a refined detector's maps without its refinements


@dataclass(frozen=True)
class Detector:
    """Networks with their scores, and the weights by which their maps are fused.

    Raises XenomaskError where a member's score is not defined for its network, or for so few classes.
    """

    name: str
    members: tuple[Member, ...]
    # named thresholds on the fused map, each with where it comes from; none of them is needed to detect
    thresholds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # what makes probabilities of its fused maps; `probability` alone applies it
    calibration: "Calibration | None" = None
    # what computes the scores from the masks: see scores.backend
    kernel: str = "auto"
    # the part of every photo that belongs to no object, such as the own bonnet; maps are raw there, too
    ignore: IgnoreRegion | None = None
    # what changes the fused map, one after the other
    refine: tuple[Refinement, ...] = ()

    def __post_init__(self):
        check_weights([m.weight for m in self.members], len(self.members))
        if self.refine and not any(has_masks(m) for m in self.used):
            raise XenomaskError(
                f"{self.name} has no mask transformer, whose masks {self.refine[0].name} needs: leave --refine out"
            )
        for m in self.used:
            m.score.displayed(m.network.per_pixel)
            if names := m.network.config.id2label:
                check_classes([m.score], len(names) - m.network.outlier_class)

    @property
    def scale(self) -> tuple[float, float]:
        """The fixed range in which this detector's maps are displayed."""
        return scale_of([(m.score, m.weight, m.network.per_pixel) for m in self.members])

    @property
    def score_name(self) -> str:
        return "+".join(dict.fromkeys(m.score.name for m in self.members))

    def detect(self, image: ImageLike) -> ScoreMap:
        """The anomaly map of one RGB photo (H, W, 3), at its size: an array, a tensor, a PIL image or a path.

        Raises XenomaskError for what `datasets.photos.as_photo` refuses.
        """
        return self.fuse(self.infer([self.prepare(image)])[0])

    def __call__(self, photos: Any) -> Any:
        """A Prediction of one photo, or a list of them of a list: paths, PIL images, arrays (H, W, 3), tensors.

        Photos of one size go through the networks together. Raises XenomaskError for what `as_photo` refuses.

        >>> prediction = Detector.load("nano-general")(np.zeros((64, 128, 3), np.uint8))
        >>> prediction.score_map.value.shape, type(prediction.objects)
        ((64, 128), <class 'list'>)
        """
        return predict(self, photos)

    @property
    def used(self) -> tuple[Member, ...]:
        """The active members: those with a weight."""
        return tuple(m for m in self.members if m.weight > 0)

    @property
    def map_score(self) -> str:
        """The score that its maps are named by: those of the active members."""
        return "+".join(dict.fromkeys(m.score.name for m in self.used))

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of its members."""
        return tuple(m.name for m in self.members)

    @property
    def reads(self) -> frozenset[str]:
        """The parts of query sets that its members' scores read."""
        return frozenset(part for m in self.members for part in m.score.reads)

    @property
    def chosen_on(self) -> frozenset[str]:
        """The data sets on which its members' outlier queries were chosen."""
        origins = (m.queries.origin for m in self.members)
        return frozenset(o["outlier"]["dataset"] for o in origins if "outlier" in o)

    @property
    def largest_batch(self) -> None:
        """Any number of photos goes through it together."""

    def opened(self, what: str) -> "Detector":
        """Return the detector itself: all of its parts can be changed."""
        return self

    def prepare(self, image: ImageLike) -> tuple[Prepared, ...]:
        """Preprocess one photo for each active member's network: the first part of `detect`."""
        image = as_photo(image)
        return tuple(m.network.prepare(image) for m in self.used)

    def infer(self, photos: Sequence[tuple[Prepared, ...]]) -> list[tuple[MaskOutput | PixelOutput, ...]]:
        """Return the networks' outputs for preprocessed photos of one input size, in one batch: the second part."""
        found = [m.network.infer(own) for m, own in zip(self.used, zip(*photos, strict=True), strict=True)]
        return list(zip(*found, strict=True))

    def fuse(self, outputs: Sequence[MaskOutput | PixelOutput]) -> ScoreMap:
        """Return the fused map, the weighted sum of the members' scores, of one photo's outputs: the third part."""
        value = np.zeros(outputs[0].image_size, np.float32)
        for m, output in zip(self.used, outputs, strict=True):
            add_score(output, m.queries, m.score, m.weight, value, self.kernel)
        if not np.isfinite(value).all():
            raise XenomaskError("the map is not finite: a network's logits hold infinity")
        return self.refined(ScoreMap(value, self.map_score), outputs)

    def refined(self, found: ScoreMap, outputs: Sequence[MaskOutput | PixelOutput]) -> ScoreMap:
        """Return a fused map as the detector's refinements change it, given the active members' outputs."""
        return refined(self.refine, found, self.used, outputs, self.scale[0]) if self.refine else found

    def nearest(self, outputs: Sequence[MaskOutput | PixelOutput]) -> Nearest:
        """Return the function that names the class of a mask (H, W) of the photo, given the networks' outputs."""
        return class_reader(self._seen(outputs))

    def classes(self, outputs: Sequence[MaskOutput | PixelOutput]) -> UInt8[np.ndarray, "H W"]:
        """Return the photo's predicted classes (H, W), Cityscapes train ids, given the networks' outputs.

        Raises XenomaskError where no member's network has these classes.
        """
        from xenomask.detector.classes import predicted_classes  # torch

        return predicted_classes(self._seen(outputs))

    def _seen(self, outputs: Sequence[MaskOutput | PixelOutput]) -> list:
        pairs = zip(self.used, outputs, strict=True)
        return [(m.weight, class_names(m, class_count(o))[:-1], o) for m, o in pairs]

    def probability(self, score_map: ScoreMap) -> Float32[np.ndarray, "H W"]:
        """What the stored calibration makes of one of this detector's maps: p(anomaly) of each pixel, in [0, 1].

        Raises XenomaskError where none is stored, where the detector was changed since, and for a map of another score.
        """
        if self.calibration is None:
            raise XenomaskError(
                f"detector {self.name} holds no calibration, and a raw map is no probability: store one with "
                "`xenomask calibrate --fit isotonic --into FOLDER`"
            )
        if score_map.score != self.map_score:
            raise XenomaskError(
                f"the calibration of {self.name} is for its {self.map_score} maps, this is a {score_map.score} map"
            )
        if self.calibration.origin.get("fingerprint") != fingerprint(self.describe()):
            raise XenomaskError(
                f"the weights, queries, score or options of {self.name} are not those that it was calibrated with: run "
                "`xenomask score` and `xenomask calibrate` again"
            )
        return self.calibration.fit(score_map.value).astype(np.float32)

    def with_score(self, score: str | Score) -> "Detector":
        """The same networks scored with another score (or its name), each member with the same weight.

        Weights, thresholds and calibration belong to the maps that they were chosen for, and are dropped with them; but
        thresholds that are stored for that score ("rba:default") become its own. A member of weight 0 stays out; so
        does, beside others, a Mahalanobis network where the score needs query sets or more than its one class.
        """
        named = isinstance(score, str)
        score = get_score(score) if isinstance(score, str) else score
        narrow = score.fewest > 1 or bool(score.needs)
        out = {m.name for m in self.used if narrow and m.network.config.model_type == MAHALANOBIS}
        chosen = [m.name for m in self.used if m.name not in out] or [m.name for m in self.used]
        members = tuple(replace(m, score=score, weight=(m.name in chosen) / len(chosen)) for m in self.members)
        if all((a.score, a.weight) == (b.score, b.weight) for a, b in zip(members, self.members, strict=True)):
            return self
        own = _under(score.name, self.thresholds) if named else {}
        return replace(self, members=members, thresholds=own, calibration=None)

    def with_refine(self, refine: str | Sequence[str | Refinement]) -> "Detector":
        """The same detector with other refinements of its fused map ("vehicles", "pooling:up=.3"), or none.

        Thresholds and calibration belong to the maps before and are dropped; but thresholds that are stored for the
        maps without any ("unrefined:default") become theirs. Raises XenomaskError for unknown ones, and for a detector
        without a mask transformer.
        """
        given = [refine] if isinstance(refine, str) else refine
        chosen = tuple(parse_refinement(r) if isinstance(r, str) else r for r in given)
        if [r.table() for r in chosen] == [r.table() for r in self.refine]:
            return self
        name = "+".join([self.name, *(r.name for r in chosen)]) if chosen else f"{self.name}-unrefined"
        own = {} if chosen else _under(UNREFINED, self.thresholds)
        return replace(self, name=name, refine=chosen, thresholds=own, calibration=None)

    def only(self, member: str) -> "Detector":
        """One member alone; without the detector's refinements where it has no masks."""
        names = [m.name for m in self.members]
        if member not in names:
            raise unknown(f"member of detector {self.name}", member, names)
        alone = next(m for m in self.members if m.name == member)
        own = self.refine if has_masks(alone) else ()
        return replace(self, members=(replace(alone, weight=1.0),), refine=own, thresholds={}, calibration=None)

    def with_tta(self, edges: Sequence[int] = (), mirror: bool = False) -> "Detector":
        """Return the detector with test-time augmentation: each member once a view, their maps averaged.

        The views are the shortest `edges` in pixels (none: the network's own size), and with `mirror` each one's mirror
        image too. Thresholds and calibration belong to maps without augmentation and are dropped. Raises XenomaskError
        for invalid edges, no view at all, a detector that has views already, and edges for a network of one input size.
        """
        from xenomask.models.runtimes.runtime import with_tta

        views = tta_views(edges, mirror)
        shown = [(m, with_tta(m.network.whole, views)) for m in self.members]
        members = tuple(
            replace(m, name=f"{m.name}@{n.view}".rstrip("@"), network=n, weight=m.weight / len(networks))
            for m, networks in shown for n in networks
        )  # fmt: skip
        name = f"{self.name}@{'+'.join([*(['mirror'] if mirror else []), *map(str, edges)])}"
        return replace(self, name=name, members=members, thresholds={}, calibration=None)

    def with_runtime(self, runtime: str, device: str = "cpu") -> "Detector":
        """The same networks run by another runtime; XenomaskError as `from_folder` has it."""
        from xenomask.models.runtimes.runtime import run_by

        networks = run_by([m.network.whole for m in self.members], runtime, device)
        members = tuple(replace(m, network=n) for m, n in zip(self.members, networks, strict=True))
        return replace(self, members=members)

    def with_kernel(self, kernel: str) -> "Detector":
        """The same detector, its scores computed by that backend; XenomaskError where it cannot run."""
        for device in {m.network.device for m in self.members}:
            choose(kernel, device)
        return replace(self, kernel=kernel)

    def with_precision(self, precision: str) -> "Detector":
        """The same networks computing in float32, bfloat16 or float16; XenomaskError where they cannot."""
        from xenomask.models.runtimes.runtime import with_precision

        members = tuple(replace(m, network=with_precision(m.network.whole, precision)) for m in self.members)
        return replace(self, members=members)

    @property
    def runtime(self) -> str:
        """What runs the networks: torch, compiled, openvino, onnxruntime."""
        return "+".join(dict.fromkeys(m.network.runtime for m in self.used))

    @property
    def precision(self) -> str:
        """What the networks compute in."""
        return "+".join(dict.fromkeys(m.network.precision for m in self.used))

    def without_frame(self, frame: str) -> "Detector":
        """The detector whose outlier queries were chosen without that frame (leave-one-image-out)."""
        members = tuple(replace(m, queries=without_frame(m.queries, frame)) for m in self.members)
        return replace(self, members=members)

    def describe(self) -> dict[str, Any]:
        """What decides its maps, ready for JSON: kept beside maps to know whether they are its own."""
        return describe_members(self.name, self.members, self.refine)

    @staticmethod
    def load(name: str | Path, device: str = "cpu", runtime: str = "auto") -> "Detector":
        """A shipped detector by its name ("nano"), a detector folder, or one of the Hub ("hf:org/name", a known name).

        Only the Hub's are downloaded, and only where they are not kept yet. On CPUs `runtime` auto, like openvino, runs
        photos by graphs that `xenomask warmup` kept and imports torch where something asks for it; auto is torch for
        all others. Raises XenomaskError as `from_folder` and `from_hub` do.
        """
        if runtime not in ("auto", *RUNTIMES):
            raise unknown("runtime", runtime, ("auto", *RUNTIMES))
        other = "torch" if runtime == "auto" else runtime
        if hub.is_remote(str(name)):
            return Detector.from_hub(str(name), device).with_runtime(other, device)
        kept = None
        if device == "cpu" and runtime in ("auto", "openvino"):
            kept = Detector.from_kept(name, fallback=other)
        return Detector.from_folder(name, device, other) if kept is None else kept

    @staticmethod
    def from_folder(folder: str | Path, device: str = "cpu", runtime: str = "torch") -> "Detector":
        """Reads a detector folder, or a shipped detector by its name ("nano").

        Raises XenomaskError for a missing or damaged one, another architecture's weights, foreign queries, and a
        runtime (torch, compiled, openvino, onnxruntime) that is unknown, not installed or not for the device.
        """
        from xenomask.models.loading import load
        from xenomask.models.runtimes.runtime import with_runtime

        found = _read(find(folder), lambda checkpoint, _: with_runtime(load(checkpoint, device), runtime, device))
        assert found is not None
        return found

    @staticmethod
    def from_kept(
        folder: str | Path, sizes: Sequence[Size] | None = None, batch: int = 1, *, fallback: str = "torch",
        once: bool = False,
    ) -> "Detector | None":  # fmt: skip
        """`from_folder` by OpenVINO graphs that earlier runs kept, which needs no torch; None where one is missing.

        `sizes` are the photos' (height, width), None: one graph of any is enough; `once`: each graph is dropped when it
        was run, to save memory. Other sizes are run by `fallback` (torch, openvino); they, and what else asks for
        the networks, load torch then.
        """
        return _read(find(folder), lambda c, sha: open_kept(c, sizes, batch, fallback=fallback, once=once, digest=sha))

    @staticmethod
    def from_hub(name: str, device: str = "cpu", token: str | None = None) -> "Detector":
        """A known detector ("maskomaly-paper") or a Hub repository's ("org/name@revision"), downloaded if need be.

        A repository holds a detector folder, or a network, which then is the one member, scored with RbA: it needs no
        query sets. Raises XenomaskError as `hub.fetch` and `from_folder` do.
        """
        return from_fetched(hub.fetch(name, token), device)

    def save(self, folder: str | Path, numbers: Mapping[str, Any] | None = None) -> Path:
        """Writes the detector as a folder, with a model card that shows `numbers` (of `xenomask evaluate --json`).

        Weights that are exactly float16 numbers are stored so. Raises XenomaskError for a folder of something else, a
        shipped detector, and members whose own folder is gone.
        """
        folder = Path(folder)
        check_own(folder)
        if folder.exists() and not (folder / FILE).is_file():
            raise XenomaskError(f"{folder} exists and is no detector folder; choose another one")
        return write_folder(
            folder, self.name, self.members, thresholds=self.thresholds, calibration=self.calibration,
            ignore=self.ignore, refine=self.refine, card=True, numbers=numbers,
        )  # fmt: skip

    def push_to_hub(
        self, name: str, token: str | None = None, private: bool = False, numbers: Mapping[str, Any] | None = None
    ) -> str:
        """Saves the detector and uploads it into the Hub repository `name`; returns the repository's address.

        Raises XenomaskError as `save` and `hub.upload` do.
        """
        with tempfile.TemporaryDirectory() as scratch:
            return hub.upload(self.save(Path(scratch) / "detector", numbers), name, token, private)


def _calibration(table: Mapping[str, Any] | None) -> "Calibration | None":
    if table is None:
        return None
    from xenomask.metrics.calibration import read_calibration

    return read_calibration(table)


def _read(path: Path, network_of: Callable[[Path, str | None], Any]) -> Detector | None:
    """The detector in a folder, its networks opened by that function, which is given each checkpoint's folder and its
    weights' SHA-256, where that was just checked; None where it gives none.
    """
    try:
        table = read_table(path)
        thresholds = read_thresholds(table.get("thresholds", {}))
        calibration = _calibration(table.get("calibration"))
        members = []
        for row in table["members"]:
            if (member := _member(path, row, network_of)) is None:
                return None
            members.append(member)
        tell_unnamed(path, table["members"])
        region = read_region(table.get("ignore"))
        found = Detector(
            str(table["name"]), tuple(members), thresholds, calibration, ignore=region, refine=read_refine(table)
        )
        return _with_own(found, path)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
        raise XenomaskError(f"{path / FILE} is damaged: {e!r}") from e


def _under(name: str, thresholds: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Those that are stored for other maps of the detector, "rba:default", by their own names."""
    return {k.removeprefix(f"{name}:"): t for k, t in thresholds.items() if k.startswith(f"{name}:")}


def _with_own(detector: Detector, path: Path) -> Detector:
    """Without the thresholds that were stored for other maps: its members, scores or weights were changed since."""
    own = fingerprint(detector.describe())
    origins = {k: t.get("origin") for k, t in detector.thresholds.items()}
    foreign = [k for k, o in origins.items() if isinstance(o, Mapping) and o.get("fingerprint", own) != own]
    if not foreign:
        return detector
    log.warning("%s was changed since its threshold %s was stored, which is left out: choose it again by `xenomask "
                "thresholds`", path / FILE, " and ".join(map(repr, foreign)))  # fmt: skip
    return replace(detector, thresholds={k: t for k, t in detector.thresholds.items() if k not in foreign})


def from_fetched(found: hub.Fetched, device: str = "cpu") -> Detector:
    """The detector in a folder that `hub.fetch` gave; its networks' facts say where it comes from."""
    if (found.folder / FILE).is_file():
        detector = Detector.from_folder(found.folder, device)
        return replace(detector, members=tuple(_with_facts(m, found.facts) for m in detector.members))
    network = hub.network_of(found, device)
    known = found.known
    if known is None:
        queries, score = read_queries(found.folder, network.sha256), get_score(HUB_SCORE)
    else:
        outlier = dict.fromkeys(known.outlier, math.nan)
        queries = QuerySet(network.sha256, {}, outlier, known.ground, known.queries_origin)
        score = get_score(known.score, known.options)
    return Detector(found.name, (Member(found.name, network, queries, score, 1.0),))


def _with_facts(member: Member, facts: Mapping[str, Any]) -> Member:
    return replace(member, network=replace(member.network, facts={**member.network.facts, **facts}))


def _member(path: Path, table: Mapping[str, Any], network_of: Callable[[Path, str | None], Any]) -> Member | None:
    folder = path / plain(table["name"])
    if (network := network_of(folder, check_files(path, table))) is None:
        return None
    if facts := table.get("facts"):  # of a Hugging Face folder, which has no place for them
        network = replace(network, facts={**network.facts, **facts})
    queries = read_queries(folder, network.sha256)
    count = getattr(network.config, "num_queries", None)
    for q in (*queries.inlier, *queries.outlier, *queries.ground):
        if type(count) is int and q >= count:
            raise XenomaskError(f"{folder} has a query file that names query {q}, its network has 0..{count - 1}")
    return Member(
        table["name"], network, queries, get_score(table["score"], table.get("options")), float(table["weight"])
    )
