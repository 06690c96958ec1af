"""One member of a detector, and its folder inside the detector's: a checkpoint with its query analysis."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenomask.errors import XenomaskError
from xenomask.files import read_object, sha256
from xenomask.models.config import CARD, CONFIG, WEIGHTS
from xenomask.queries import write_queries
from xenomask.queries.analysis import FILE, FOLDER
from xenomask.scores import Score
from xenomask.types import QuerySet

if TYPE_CHECKING:
    from xenomask.models.network import Network
else:  # or a runtimes.kept.Kept, which needs no torch
    Network = Any


@dataclass(frozen=True)
class Member:
    """One network with its queries, the score that reads them, and its weight in the ensemble."""

    name: str
    network: Network
    queries: QuerySet
    score: Score
    weight: float


def plain(name: str) -> str:
    """A member's name, which is a folder's too and so must not lead elsewhere; XenomaskError if it does."""
    if not name or name == ".." or Path(name).name != name:
        raise XenomaskError(f"member {name!r} of a detector is no plain folder name")
    return name


def write_member(detector: Path, m: Member, half: bool | None = None, analysis: Path | None = None) -> dict[str, Any]:
    """Write one member's checkpoint and query sets into a detector folder; returns its row of detector.json.

    `half` stores its weights as float16; None: where they are exactly such numbers. As that changes their hash, the
    query sets are re-addressed to the stored weights, and say so in their origin. `analysis`: a folder of a query
    analysis whose tables are copied along. Raises XenomaskError where a Hugging Face network's own folder, which is
    copied, is gone, for a score that is not defined for the network, and for a detector with test-time augmentation.
    """
    from xenomask.models.network import OWN

    network, queries = m.network.whole, m.queries
    if str(network.view):
        raise XenomaskError(
            "a folder holds no test-time augmentation: save the detector without, name it where it runs"
        )
    m.score.displayed(network.per_pixel)
    folder = detector / plain(m.name)
    source = Path(str(network.facts.get("source", "")))
    facts = {k: v for k, v in network.facts.items() if k != "source" or not source.is_dir()}  # no path of this machine
    row: dict[str, Any] = {"name": m.name, "score": m.score.name, "weight": m.weight}
    if m.score.options:
        row["options"] = dict(m.score.options)
    if network.config.model_type in OWN:
        tensors = (t for t in network.module.state_dict().values() if t.is_floating_point())
        half = all(bool((t == t.half()).all()) for t in tensors) if half is None else half
        replace(network, facts=facts).save(folder, half=half)
        own = sha256(folder / WEIGHTS)
        if queries.checkpoint_sha256 != own:
            origin = {**queries.origin, "analysed_as": {"sha256": queries.checkpoint_sha256, "dtype": "float32"}}
            queries = replace(queries, checkpoint_sha256=own, origin=origin)
    else:  # used as it is; its facts have no other place than our table
        if not (source / CONFIG).is_file():
            raise XenomaskError(f"member {m.name} cannot be written: the folder it was read from is gone")
        folder.mkdir()
        for path in source.iterdir():
            if path.suffix in (".json", ".safetensors", ".txt", ".bin"):
                shutil.copyfile(path, folder / path.name)
        row["facts"] = facts
    if analysis is not None and analysis.is_dir():
        shutil.copytree(analysis, folder / FOLDER)
    if queries.inlier or queries.outlier or queries.ground or (folder / FOLDER / FILE).is_file():
        write_queries(folder, queries)
    return row


def stored_facts(detector: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a detector folder states about each member's network: its facts, and the data of its query analyses.

    Raises XenomaskError for a damaged file.
    """
    facts = {}
    for row in rows:
        folder = detector / plain(row["name"])
        card, queries = (_table(folder / name) for name in (CARD, f"{FOLDER}/{FILE}"))
        own = {k: v for k, v in card.items() if k != "preprocess"}
        facts[row["name"]] = {**own, **row.get("facts", {}), **({"queries": queries["origin"]} if queries else {})}
    return facts


def _table(path: Path) -> dict[str, Any]:
    """A JSON table; an empty one where there is no file."""
    return read_object(path) if path.is_file() else {}


def class_names(member: Member, count: int) -> list[str]:
    """The names of a network's classes, then what it calls the rest."""
    known = getattr(member.network.config, "id2label", None) or {}
    return [*(str(known.get(k, f"class {k}")) for k in range(count)), "no known class"]
