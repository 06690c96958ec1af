"""A detector's folder on disk: what it holds, what may be written into it, and how it is described.

detector.json            members with score, options, weight and the SHA-256 of each file; thresholds; calibration
<member>/                a checkpoint folder, its query_analysis/ inside
README.md                the model card
"""

import hashlib
import json
import logging
import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenomask.arrays import as_threshold
from xenomask.detector.card import model_card
from xenomask.detector.find import FILE, SHIPPED
from xenomask.detector.fuse import check_weights
from xenomask.detector.member import Member, plain, stored_facts, write_member
from xenomask.detector.parts import ANALYSIS, check_files, check_inside, member_files, with_files
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir, read_object, remove_litter
from xenomask.files import finite as listed
from xenomask.models.config import is_per_pixel
from xenomask.models.preprocess import Preprocess
from xenomask.objects.ignore import IgnoreRegion
from xenomask.queries import read_queries
from xenomask.queries.analysis import FOLDER
from xenomask.refine import Refinement, get_refinement
from xenomask.scores import Score, get_score
from xenomask.types import QuerySet

if TYPE_CHECKING:  # few detectors have one
    from xenomask.metrics.calibration import Calibration

log = logging.getLogger(__name__)

CARD = "README.md"
MAX_MEMBERS = 32


def scale_of(members: Sequence[tuple[Score, float, bool]]) -> tuple[float, float]:
    """The range in which the fused maps of (score, weight, whether it classifies pixels) are displayed."""
    low, high = (float(sum(weight * score.displayed(pixel)[i] for score, weight, pixel in members)) for i in (0, 1))
    return low, high


def describe(
    name: str,
    members: Sequence[tuple[str, str, str, Preprocess, Score, float, QuerySet, str]],
    scale: tuple[float, float],
    refine: Sequence[Refinement] = (),
) -> dict[str, Any]:
    """What decides a detector's maps.

    Of each member its name, hashes of weights and configuration, way of preparing photos, score, weight, queries, and
    look if not plain; its refinements, if it has any.
    """
    return {
        "detector": name,
        "members": [
            {
                "name": member, "sha256": sha, "settings": settings,
                "preprocess": listed(asdict(preprocess)), "score": score.name,
                "options": dict(score.options), "weight": weight,
                "outlier_queries": sorted(queries.outlier), "inlier_queries": sorted(queries.inlier),
                "ground_queries": sorted(queries.ground), **({"look": look} if look else {}),
            }
            for member, sha, settings, preprocess, score, weight, queries, look in members
        ],
        "scale": list(scale), **({"refine": [r.table() for r in refine]} if refine else {}),
    }  # fmt: skip


def describe_members(name: str, members: Sequence[Member], refine: Sequence[Refinement] = ()) -> dict[str, Any]:
    """What decides the maps of a detector of these members; see `describe`."""
    own = [
        (m.name, n.sha256, n.settings, n.preprocess, m.score, m.weight, m.queries, str(n.view))
        for m in members
        for n in [m.network]
    ]
    return describe(name, own, scale_of([(m.score, m.weight, m.network.per_pixel) for m in members]), refine)


def describe_folder(folder: Path) -> dict[str, Any]:
    """`Detector.describe` of a detector folder, from its files' hashes: no network is loaded.

    Raises XenomaskError for a missing or damaged folder and for foreign queries.
    """
    from xenomask.models.loading import identity

    table = read_table(folder)
    try:
        members, drawn = [], []
        for m in table["members"]:
            check_files(folder, m)
            sha, settings, preprocess = identity(folder / m["name"])
            queries = read_queries(folder / m["name"], sha)
            score = get_score(m["score"], m.get("options"))
            members.append((m["name"], sha, settings, preprocess, score, float(m["weight"]), queries, ""))
            drawn.append((score, float(m["weight"]), is_per_pixel(folder / m["name"])))
        return describe(str(table["name"]), members, scale_of(drawn), read_refine(table))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as e:
        raise XenomaskError(f"{folder / FILE} is damaged: {e!r}") from e


def fingerprint(description: Mapping[str, Any]) -> str:
    """A hash of what decides a detector's maps: all that `Detector.describe` holds but names."""
    members = [{k: v for k, v in m.items() if k != "name"} for m in description["members"]]
    own = [*members, *({"refine": r} for r in description.get("refine", []))]
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def read_refine(table: Mapping[str, Any]) -> tuple[Refinement, ...]:
    """The refinements that detector.json names; KeyError, TypeError or XenomaskError for what are none."""
    found = tuple(get_refinement(r["name"], dict(r["options"])) for r in table.get("refine", []))
    if foreign := [r.name for r in found if r.needs != "masks"]:
        raise XenomaskError(f"{FILE} names the refinement {foreign[0]}, which no detector has: see `xenomask refine`")
    return found


def read_table(folder: Path) -> dict[str, Any]:
    """The folder's detector.json, its members checked; XenomaskError for a missing or damaged one."""
    if not os.path.lexists(folder / FILE):
        raise XenomaskError(f"{folder} is no detector folder: it has no {FILE}; `xenomask assemble --member` makes one")
    check_inside(folder / FILE, folder)
    table = read_object(folder / FILE)
    try:
        _check_members(folder, table["members"])
    except (ValueError, KeyError, TypeError, OverflowError) as e:
        raise XenomaskError(f"{folder / FILE} is damaged: {e!r}") from e
    return table


def _check_members(folder: Path, members: Any) -> None:
    """Refuses what would make a detector of other folders than its own, or of far too many networks."""
    if type(members) is not list or not 1 <= len(members) <= MAX_MEMBERS:
        raise ValueError(f"members is no list of 1 to {MAX_MEMBERS}")
    names = [m["name"] for m in members]
    for name in names:
        if type(name) is not str or Path(name).name != name or name in ("", "..") or not name.isprintable():
            raise XenomaskError(f"{folder / FILE} names the member {str(name)[:80]!r}, which is no folder inside it")
    check_names(folder, names)
    for m in members:
        for key, value in (m.get("options") or {}).items():
            if value is not None and type(value) not in (str, bool) and not math.isfinite(value):
                raise ValueError(f"option {key} is not finite")
    check_weights([finite(m["weight"]) for m in members], len(members))


def check_names(folder: Path, names: Sequence[str]) -> None:
    """Raises XenomaskError where two members have one name, or names that are one folder on some file systems."""
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            raise XenomaskError(
                f"two members of the detector {folder} are called {seen[key]!r} and {name!r}, which may be one folder: "
                "name them apart"
            )
        seen[key] = name


def finite(value: Any) -> float:
    """A number of a table; ValueError for what is none, or not finite."""
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]} is no finite number")
    return float(value)


def read_thresholds(table: Any) -> dict[str, dict[str, Any]]:
    """The thresholds of a table by name; ValueError, KeyError, TypeError or AttributeError for what are none."""
    return {k: {**t, "value": finite(t["value"])} for k, t in table.items()}


def check_own(folder: Path) -> None:
    """Raises XenomaskError for a shipped detector, which is the package's and never written to."""
    if (folder / FILE).resolve().is_relative_to(SHIPPED.resolve()):
        raise XenomaskError(f"{folder} is a shipped detector and stays as it is: copy the folder, then name the copy")


def store_threshold(folder: Path, name: str, value: float, origin: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Writes a named threshold ("default" is the one that `detect` draws) into detector.json; returns what it replaced.

    Raises XenomaskError for a missing, damaged or shipped detector.
    """
    check_own(folder)
    table = read_table(folder)
    thresholds = dict(table.get("thresholds", {}))
    old = thresholds.get(name)
    write_table(folder, {**table, "thresholds": {**thresholds, name: {"value": value, "origin": dict(origin)}}})
    return old


def store_calibration(folder: Path, calibration: "Calibration") -> Mapping[str, Any] | None:
    """Writes a calibration into detector.json, from where only `Detector.probability` uses it; returns the old one.

    Raises XenomaskError for a missing, damaged or shipped detector.
    """
    check_own(folder)
    table = read_table(folder)
    write_table(folder, {**table, "calibration": calibration.table()})
    return table.get("calibration")


def store_region(folder: Path, region: IgnoreRegion | None) -> None:
    """Writes an ignore region into detector.json, or takes it out; XenomaskError as `store_threshold` has it."""
    check_own(folder)
    table = {k: v for k, v in read_table(folder).items() if k != "ignore"}
    write_table(folder, table if region is None else {**table, "ignore": region.to_json()})


def write_table(folder: Path, table: Mapping[str, Any]) -> None:
    """Writes the folder's detector.json, whole or not at all."""
    with atomic(folder / FILE) as part:
        part.write_text(json.dumps(table, indent=1, allow_nan=False) + "\n")


def write_folder(
    folder: Path,
    name: str,
    members: Sequence[Member],
    *,
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
    calibration: "Calibration | None" = None,
    ignore: IgnoreRegion | None = None,
    refine: Sequence[Refinement] = (),
    half: bool | None = None,
    analyses: Mapping[str, Path] | None = None,
    card: bool = False,
    numbers: Mapping[str, Any] | None = None,
) -> Path:
    """Write a detector folder, whole or not at all, in place of one that is there; with a model card if asked for.

    `half` and `analyses` (by member): see `write_member`. `numbers` (of `xenomask evaluate --json`) are for the card.
    Raises XenomaskError for members that cannot be written.
    """
    check_names(folder, [plain(m.name) for m in members])
    make_dir(folder.parent)
    remove_litter(folder.parent, folder.name)
    with atomic(folder) as part:
        part.mkdir()
        rows = [with_files(part, write_member(part, m, half, (analyses or {}).get(m.name))) for m in members]
        for t in (thresholds or {}).values():
            as_threshold(t["value"])
        table: dict[str, Any] = {"name": name, "members": rows, "thresholds": dict(thresholds or {})}
        if ignore is not None:
            table["ignore"] = ignore.to_json()
        if refine:
            table["refine"] = [r.table() for r in refine]
        write_table(part, table)
        if calibration is not None:
            origin = dict(calibration.origin)
            if origin.get("fingerprint") == fingerprint(describe_members(name, members, refine)):
                origin["fingerprint"] = fingerprint(describe_folder(part))  # the same numbers in another file
            write_table(part, {**table, "calibration": replace(calibration, origin=origin).table()})
        if card:
            write_card(part, numbers)
    return folder


def assemble(
    folder: Path,
    name: str,
    checkpoints: Sequence[tuple[str, Path]],
    weights: Sequence[float],
    score: str | Mapping[str, str],
    *,
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
    half: bool = False,
) -> Path:
    """Write a detector folder from named checkpoint folders and their query analyses, with one score or one each.

    `half` stores the weights as float16. Raises XenomaskError for a score not defined for a network.
    """
    from xenomask.models.loading import load

    check_weights(weights, len(checkpoints))
    check_names(folder, [plain(member) for member, _ in checkpoints])
    members = []
    for (member, checkpoint), weight in zip(checkpoints, weights, strict=True):
        own = get_score(score if isinstance(score, str) else score[member])
        network = load(checkpoint)
        members.append(Member(member, network, read_queries(checkpoint, network.sha256), own, weight))
    analyses = {member: checkpoint / FOLDER for member, checkpoint in checkpoints}
    write_folder(folder, name, members, thresholds=thresholds, half=half, analyses=analyses)
    _tell_unanalysed(folder, read_table(folder)["members"])
    return folder


def record_files(folder: Path) -> Path:
    """Names the files that lie in a detector folder in its detector.json, as they are, once they were found to load.

    Raises XenomaskError for a missing, damaged or shipped detector.
    """
    from xenomask.models.loading import load

    check_own(folder)
    table = read_table(folder)
    rows = []
    try:
        for m in table["members"]:
            row = with_files(folder, m)
            network = load(folder / m["name"])
            get_score(m["score"], m.get("options")).displayed(network.per_pixel)
            read_queries(folder / m["name"], network.sha256)
            rows.append(row)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise XenomaskError(f"{folder / FILE} is damaged: {e!r}") from e
    write_table(folder, {**table, "members": rows})
    _tell_unanalysed(folder, rows)
    return folder


def _tell_unanalysed(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        if get_score(row["score"], row.get("options")).reads and ANALYSIS not in member_files(folder, row["name"]):
            log.warning(
                "%s has no query analysis, which its score %s reads: its maps are those of no outlier, inlier and "
                "ground queries; run `xenomask queries` on the checkpoint and assemble again",
                folder / row["name"], row["score"],
            )  # fmt: skip


def write_card(folder: Path, numbers: Mapping[str, Any] | None = None) -> Path:
    """Writes the model card README.md of a detector folder, from its files alone.

    Raises XenomaskError for a missing, damaged or shipped detector.
    """
    check_own(folder)
    text = model_card(describe_folder(folder), stored_facts(folder, read_table(folder)["members"]), numbers)
    with atomic(folder / CARD) as part:
        part.write_text(text)
    return folder / CARD
