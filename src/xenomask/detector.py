"""Detector: photo -> ScoreMap, and its folder on disk.

detector.json            members with score, options and weight; scale of the pictures; thresholds
<member>/                a checkpoint folder, its query_analysis/ inside
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from xenomask.ensemble import check_weights, ensemble
from xenomask.errors import XenomaskError, unknown
from xenomask.files import atomic, make_dir
from xenomask.models import Network, load
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

    def __post_init__(self):
        check_weights([m.weight for m in self.members], len(self.members))

    @property
    def scale(self) -> tuple[float, float]:
        """The fixed range in which this detector's maps are drawn."""
        low, high = (sum(m.weight * m.score.scale[i] for m in self.members) for i in (0, 1))
        return float(low), float(high)

    @property
    def score_name(self) -> str:
        return "+".join(dict.fromkeys(m.score.name for m in self.members))

    def detect(self, image: UInt8[np.ndarray, "H W 3"]) -> ScoreMap:
        """The anomaly map of one RGB photo, at its size."""
        maps = [score_all(m.network(image), m.queries, [m.score])[m.score.name] for m in self.members if m.weight > 0]
        return ensemble(maps, [m.weight for m in self.members if m.weight > 0])

    def detect_scores(
        self, image: UInt8[np.ndarray, "H W 3"], scores: Sequence[Score]
    ) -> dict[str, dict[str, ScoreMap]]:
        """Maps by score, then by member or "ensemble"; each network looks once."""
        outputs = {m.name: score_all(m.network(image), m.queries, scores) for m in self.members}
        weights = [m.weight for m in self.members]
        found = {}
        for s in scores:
            own = {name: maps[s.name] for name, maps in outputs.items()}
            found[s.name] = {**own, "ensemble": ensemble(list(own.values()), weights)}
        return found

    def with_score(self, name: str) -> "Detector":
        """The same networks read by another score; thresholds of the old one are dropped."""
        score = get_score(name)
        return replace(self, members=tuple(replace(m, score=score) for m in self.members), thresholds={})

    def only(self, member: str) -> "Detector":
        """One member alone."""
        names = [m.name for m in self.members]
        if member not in names:
            raise unknown(f"member of detector {self.name}", member, names)
        alone = next(m for m in self.members if m.name == member)
        return replace(self, members=(replace(alone, weight=1.0),), thresholds={})

    def without_frame(self, frame: str) -> "Detector":
        """The detector whose outlier queries were chosen without that frame (leave-one-image-out)."""
        members = tuple(replace(m, queries=without_frame(m.queries, frame)) for m in self.members)
        return replace(self, members=members)

    def describe(self) -> dict[str, Any]:
        """What decides its maps, ready for JSON: kept beside maps to know whether they are its own."""
        return {
            "detector": self.name,
            "members": [
                {
                    "name": m.name, "sha256": m.network.sha256, "score": m.score.name,
                    "options": dict(m.score.options), "weight": m.weight,
                    "outlier_queries": sorted(m.queries.outlier), "inlier_queries": sorted(m.queries.inlier),
                    "ground_queries": sorted(m.queries.ground),
                }
                for m in self.members
            ],
            "scale": list(self.scale),
        }  # fmt: skip

    @staticmethod
    def from_folder(folder: str | Path, device: str = "cpu") -> "Detector":
        """Reads a detector folder, or a shipped detector by its name ("nano").

        Raises XenomaskError for a missing or damaged one, another architecture's weights, or foreign queries.
        """
        path = find(folder)
        try:
            table = json.loads((path / FILE).read_text())
            members = tuple(_member(path, m, device) for m in table["members"])
            return Detector(str(table["name"]), members, table.get("thresholds", {}))
        except (ValueError, KeyError, TypeError) as e:
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


def _member(path: Path, table: Mapping[str, Any], device: str) -> Member:
    folder = path / table["name"]
    network = load(folder, device)
    queries = read_queries(folder, network.sha256)
    return Member(
        table["name"], network, queries, get_score(table["score"], table.get("options")), float(table["weight"])
    )


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
    network.save(target, half=half)
    if (checkpoint / FOLDER).is_dir():
        shutil.copytree(checkpoint / FOLDER, target / FOLDER)
        own = load(target).sha256
        origin = dict(queries.origin)
        if own != queries.checkpoint_sha256:
            origin["analysed_as"] = {"sha256": queries.checkpoint_sha256, "dtype": "float32"}
        write_queries(target, replace(queries, checkpoint_sha256=own, origin=origin))
