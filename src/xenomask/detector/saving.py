"""One member of a detector -> its folder, and what such folders say of their networks."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError
from xenomask.files import read_text, sha256
from xenomask.models import Network
from xenomask.models.network import CARD, CONFIG, WEIGHTS
from xenomask.queries import write_queries
from xenomask.queries.analysis import FILE, FOLDER
from xenomask.scores import Score
from xenomask.types import QuerySet


def plain(name: str) -> str:
    """A member's name, which is a folder's too and so must not lead elsewhere; XenomaskError if it does."""
    if not name or name == ".." or Path(name).name != name:
        raise XenomaskError(f"member {name!r} of a detector is no plain folder name")
    return name


def save_member(
    detector: Path, name: str, network: Network, queries: QuerySet, score: Score, weight: float
) -> dict[str, Any]:
    """Writes one member's checkpoint and query sets into a detector folder; returns its row of detector.json.

    Weights that are exactly float16 numbers are stored so. Raises XenomaskError where a Hugging Face network's own
    folder, which is copied, is gone, and for a detector with looks.
    """
    if str(network.shown):
        raise XenomaskError("a folder holds no looks: save the detector without them, and name them where it runs")
    folder = detector / plain(name)
    source = Path(str(network.facts.get("source", "")))
    facts = {k: v for k, v in network.facts.items() if k != "source" or not source.is_dir()}  # no path of this machine
    row: dict[str, Any] = {"name": name, "score": score.name, "weight": weight}
    if score.options:
        row["options"] = dict(score.options)
    if network.config.model_type == "mask2former":
        tensors = (t for t in network.module.state_dict().values() if t.is_floating_point())
        replace(network, facts=facts).save(folder, half=all(bool((t == t.half()).all()) for t in tensors))
        own = sha256(folder / WEIGHTS)
        if queries.checkpoint_sha256 != own:
            origin = {**queries.origin, "analysed_as": {"sha256": queries.checkpoint_sha256}}
            queries = replace(queries, checkpoint_sha256=own, origin=origin)
    else:  # used as it is; its facts have no other place than our table
        if not (source / CONFIG).is_file():
            raise XenomaskError(f"member {name} cannot be written: the folder it was read from is gone")
        folder.mkdir()
        for path in source.iterdir():
            if path.suffix in (".json", ".safetensors", ".txt", ".bin"):
                shutil.copyfile(path, folder / path.name)
        row["facts"] = facts
    if queries.inlier or queries.outlier or queries.ground:
        write_queries(folder, queries)
    return row


def stored_facts(detector: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a detector folder says of each member's network: its facts, and the data of its query analyses.

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
    try:
        return dict(json.loads(read_text(path))) if path.is_file() else {}
    except (ValueError, TypeError) as e:
        raise XenomaskError(f"{path} is damaged: {e}") from e
