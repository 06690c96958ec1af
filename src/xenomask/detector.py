"""Detector: photo -> ScoreMap, and its folder on disk.

detector.json            members with score, options and weight; thresholds; calibration
<member>/                a checkpoint folder, its query_analysis/ inside
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from xenomask.ensemble import check_weights, ensemble
from xenomask.errors import XenomaskError, unknown
from xenomask.files import atomic, make_dir, sha256
from xenomask.metrics.calibration import Calibration, read_calibration
from xenomask.models import Network, load
from xenomask.models.network import WEIGHTS
from xenomask.models.runtimes import with_runtime
from xenomask.queries import read_queries, without_frame, write_queries
from xenomask.queries.analysis import FOLDER
from xenomask.scores import Score, get_score, score_all
from xenomask.types import QuerySet, ScoreMap

FILE = "detector.json"
SHIPPED = Path(__file__).parent / "detectors"
DEFAULT = "nano"


@dataclass(frozen=True)
class Member:
    """One network with its queries, the score that reads them, and its weight in the ensemble."""

    name: str
    network: Network
    queries: QuerySet
    score: Score
    weight: float


@dataclass(frozen=True)
class Detector:
    """Mask transformers that look at a photo, and how their maps are joined."""

    name: str
    members: tuple[Member, ...]
    # named thresholds on the joined map, each with where it comes from; none of them is needed to detect
    thresholds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # what makes probabilities of its joined maps; `probability` alone applies it
    calibration: Calibration | None = None

    def __post_init__(self):
        check_weights([m.weight for m in self.members], len(self.members))

    @property
    def scale(self) -> tuple[float, float]:
        """The fixed range in which this detector's maps are drawn."""
        return _scale([(m.score, m.weight) for m in self.members])

    @property
    def score_name(self) -> str:
        return "+".join(dict.fromkeys(m.score.name for m in self.members))

    def detect(self, image: UInt8[np.ndarray, "H W 3"]) -> ScoreMap:
        """The anomaly map of one RGB photo, at its size."""
        used = [m for m in self.members if m.weight > 0]
        maps = [score_all(m.network.predict(image), m.queries, [m.score])[m.score.name] for m in used]
        return ensemble(maps, [m.weight for m in used])

    def probability(self, score_map: ScoreMap) -> Float32[np.ndarray, "H W"]:
        """What the stored calibration makes of one of this detector's maps: p(anomaly) of each pixel, in [0, 1].

        Raises XenomaskError where none is stored, where the detector was changed since, and for a map of another score.
        """
        if self.calibration is None:
            raise XenomaskError(
                f"detector {self.name} holds no calibration, and a raw map is no probability: store one with "
                "`xenomask calibrate --fit isotonic --into FOLDER`"
            )
        own = "+".join(dict.fromkeys(m.score.name for m in self.members if m.weight > 0))
        if score_map.score != own:
            raise XenomaskError(
                f"the calibration of {self.name} is for its {own} maps, this is a {score_map.score} map"
            )
        if self.calibration.origin.get("fingerprint") != fingerprint(self.describe()):
            raise XenomaskError(
                f"the weights, queries, score or options of {self.name} are not those that it was calibrated with: run "
                "`xenomask score` and `xenomask calibrate` again"
            )
        return self.calibration.fit(score_map.value).astype(np.float32)

    def with_score(self, score: str | Score) -> "Detector":
        """The same networks read by another score (or its name); thresholds and calibration of the old are dropped."""
        score = get_score(score) if isinstance(score, str) else score
        members = tuple(replace(m, score=score) for m in self.members)
        return replace(self, members=members, thresholds={}, calibration=None)

    def only(self, member: str) -> "Detector":
        """One member alone."""
        names = [m.name for m in self.members]
        if member not in names:
            raise unknown(f"member of detector {self.name}", member, names)
        alone = next(m for m in self.members if m.name == member)
        return replace(self, members=(replace(alone, weight=1.0),), thresholds={}, calibration=None)

    def without_frame(self, frame: str) -> "Detector":
        """The detector whose outlier queries were chosen without that frame (leave-one-image-out)."""
        members = tuple(replace(m, queries=without_frame(m.queries, frame)) for m in self.members)
        return replace(self, members=members)

    def describe(self) -> dict[str, Any]:
        """What decides its maps, ready for JSON: kept beside maps to know whether they are its own."""
        return _describe(self.name, [(m.name, m.network.sha256, m.score, m.weight, m.queries) for m in self.members])

    @staticmethod
    def from_folder(folder: str | Path, device: str = "cpu", runtime: str = "torch") -> "Detector":
        """Reads a detector folder, or a shipped detector by its name ("nano").

        Raises XenomaskError for a missing or damaged one, another architecture's weights, foreign queries, and a
        runtime (torch, compiled, openvino, onnxruntime) that is unknown, not installed or not for the device.
        """
        path = find(folder)
        try:
            table = json.loads((path / FILE).read_text())
            members = tuple(_member(path, m, device, runtime) for m in table["members"])
            thresholds = {k: {**t, "value": float(t["value"])} for k, t in table.get("thresholds", {}).items()}
            return Detector(str(table["name"]), members, thresholds, read_calibration(table.get("calibration")))
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise XenomaskError(f"{path / FILE} is damaged: {e!r}") from e


def find(folder: str | Path) -> Path:
    """The folder of a detector: a path, or the name of a shipped one."""
    for path in (Path(folder), SHIPPED / str(folder)):
        if (path / FILE).is_file():
            return path
    shipped = sorted(p.name for p in SHIPPED.glob("*") if (p / FILE).is_file())
    if Path(folder).is_dir():
        raise XenomaskError(f"{folder} is no detector folder: it has no {FILE}; `xenomask assemble` makes one")
    raise unknown("detector", str(folder), shipped)


def _member(path: Path, table: Mapping[str, Any], device: str, runtime: str) -> Member:
    folder = path / table["name"]
    network = with_runtime(load(folder, device), runtime, device)
    queries = read_queries(folder, network.sha256)
    return Member(
        table["name"], network, queries, get_score(table["score"], table.get("options")), float(table["weight"])
    )


def _scale(members: Sequence[tuple[Score, float]]) -> tuple[float, float]:
    low, high = (sum(weight * score.scale[i] for score, weight in members) for i in (0, 1))
    return float(low), float(high)


def _describe(name: str, members: Sequence[tuple[str, str, Score, float, QuerySet]]) -> dict[str, Any]:
    return {
        "detector": name,
        "members": [
            {
                "name": member, "sha256": sha, "score": score.name, "options": dict(score.options), "weight": weight,
                "outlier_queries": sorted(queries.outlier), "inlier_queries": sorted(queries.inlier),
                "ground_queries": sorted(queries.ground),
            }
            for member, sha, score, weight, queries in members
        ],
        "scale": list(_scale([(score, weight) for _, _, score, weight, _ in members])),
    }  # fmt: skip


def describe_folder(folder: Path) -> dict[str, Any]:
    """What `Detector.describe` says of a detector folder, from its files' hashes: no network is loaded.

    Raises XenomaskError for a missing or damaged folder and for foreign queries.
    """
    table = _read_table(folder)
    try:
        members = []
        for m in table["members"]:
            sha = sha256(folder / m["name"] / WEIGHTS)
            queries = read_queries(folder / m["name"], sha)
            members.append((m["name"], sha, get_score(m["score"], m.get("options")), float(m["weight"]), queries))
        return _describe(str(table["name"]), members)
    except (ValueError, KeyError, TypeError, OSError) as e:
        raise XenomaskError(f"{folder / FILE} is damaged: {e!r}") from e


def fingerprint(description: Mapping[str, Any]) -> str:
    """A hash of what decides a detector's maps: all that `Detector.describe` says of its members but their names."""
    members = [{k: v for k, v in m.items() if k != "name"} for m in description["members"]]
    return hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()


def _read_table(folder: Path) -> dict[str, Any]:
    if not (folder / FILE).is_file():
        raise XenomaskError(f"{folder} is no detector folder: it has no {FILE}; `xenomask assemble` makes one")
    try:
        return dict(json.loads((folder / FILE).read_text()))
    except (ValueError, TypeError) as e:
        raise XenomaskError(f"{folder / FILE} is damaged: {e!r}") from e


def check_own(folder: Path) -> None:
    """Raises XenomaskError for a shipped detector, which is the package's and never written to."""
    if (folder / FILE).resolve().is_relative_to(SHIPPED.resolve()):
        raise XenomaskError(f"{folder} is a shipped detector and stays as it is: copy the folder, then name the copy")


def store_threshold(folder: Path, name: str, value: float, origin: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Writes a named threshold ("default" is the one that `detect` draws) into detector.json; returns what it replaced.

    Raises XenomaskError for a missing, damaged or shipped detector.
    """
    check_own(folder)
    table = _read_table(folder)
    thresholds = dict(table.get("thresholds", {}))
    old = thresholds.get(name)
    _write_table(folder, {**table, "thresholds": {**thresholds, name: {"value": value, "origin": dict(origin)}}})
    return old


def store_calibration(folder: Path, calibration: Calibration) -> Mapping[str, Any] | None:
    """Writes a calibration into detector.json, from where only `Detector.probability` uses it; returns the old one.

    Raises XenomaskError for a missing, damaged or shipped detector.
    """
    check_own(folder)
    table = _read_table(folder)
    _write_table(folder, {**table, "calibration": calibration.table()})
    return table.get("calibration")


def _write_table(folder: Path, table: Mapping[str, Any]) -> None:
    with atomic(folder / FILE) as part:
        part.write_text(json.dumps(table, indent=1, allow_nan=False) + "\n")


def assemble(
    folder: Path,
    name: str,
    checkpoints: Sequence[tuple[str, Path]],
    weights: Sequence[float],
    score: str,
    *,
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
    half: bool = False,
) -> Path:
    """Writes a detector folder from named checkpoint folders and their query analyses.

    `half` stores the weights as float16. As that changes their hash, the query sets are re-addressed to the
    rounded weights, and say so in their origin.
    """
    check_weights(weights, len(checkpoints))
    get_score(score)
    make_dir(folder.parent)
    with atomic(folder) as part:
        part.mkdir()
        for member, checkpoint in checkpoints:
            _copy_member(checkpoint, part / member, half)
        table = {
            "name": name,
            "members": [
                {"name": member, "score": score, "weight": w}
                for (member, _), w in zip(checkpoints, weights, strict=True)
            ],
            "thresholds": dict(thresholds or {}),
        }
        (part / FILE).write_text(json.dumps(table, indent=1) + "\n")
    return folder


def _copy_member(checkpoint: Path, target: Path, half: bool) -> None:
    network = load(checkpoint)
    queries = read_queries(checkpoint, network.sha256)
    if network.config.model_type != "mask2former":  # Hugging Face's folder, its analysis inside
        shutil.copytree(checkpoint, target)
        return
    network.save(target, half=half)
    if (checkpoint / FOLDER).is_dir():
        shutil.copytree(checkpoint / FOLDER, target / FOLDER)
        own = load(target).sha256
        origin = dict(queries.origin)
        if own != queries.checkpoint_sha256:
            origin["analysed_as"] = {"sha256": queries.checkpoint_sha256, "dtype": "float32"}
        write_queries(target, replace(queries, checkpoint_sha256=own, origin=origin))
