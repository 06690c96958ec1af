"""What a detector's member is made of: detector.json names each file of it with its SHA-256, and nothing else is read.

Without these, a folder that lost its query analysis or its xenomask.json still gave maps: others.
"""

import logging
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.models.config import WEIGHTS, refuse_stripped
from xenomask.queries.analysis import FILE, FOLDER
from xenomask.scores import get_score

log = logging.getLogger(__name__)

FILES = "files"  # the key in a member's row: {path inside its folder: SHA-256}
ANALYSIS = f"{FOLDER}/{FILE}"
READ = ("*.json", "*.safetensors", "*.bin", "merges.txt", ANALYSIS)  # what loading a member may open


def member_files(detector: Path, member: str) -> dict[str, Path]:
    """The files of a member that decide its maps, by their path inside its folder; none of them is opened.

    Raises XenomaskError for a FIFO, a device, a folder and a link that leads out of the detector's folder.
    """
    folder = detector / member
    found = {
        p.relative_to(folder).as_posix(): p for pattern in READ for p in folder.glob(pattern) if p.name[0] != "."
    }  # fmt: skip
    if os.path.lexists(folder / ANALYSIS):  # glob leaves a dangling link out
        found[ANALYSIS] = folder / ANALYSIS
    for path in found.values():
        check_inside(path, detector)
    return dict(sorted(found.items()))


def check_inside(path: Path, root: Path) -> None:
    """Raises XenomaskError unless `path` is an ordinary file that lies in the folder `root`; it is not opened."""
    try:
        real, home = path.resolve(strict=True), root.resolve()
        ordinary = stat.S_ISREG(real.stat().st_mode)
    except OSError as e:
        raise XenomaskError(f"{path} cannot be read: {e.strerror}") from e
    # the Hub's cache: .../snapshots/<commit>/ holds links to the files in .../blobs/
    homes = [home, *([home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [])]
    if not any(real.is_relative_to(h) for h in homes):
        raise XenomaskError(f"{path} is a link out of the folder {root}, which is not followed: copy the file there")
    if not ordinary:
        raise XenomaskError(f"{path} is no ordinary file (a folder, a pipe or a device): copy it again")


def with_files(detector: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """A member's row of detector.json that names its files as they are; XenomaskError as `member_files` has it."""
    return {**row, FILES: {name: sha256(p) for name, p in member_files(detector, row["name"]).items()}}


def check_files(detector: Path, row: Mapping[str, Any]) -> str | None:
    """The SHA-256 of a member's weights, None where its row has none; XenomaskError that names the first file at fault.

    A fault is a file which is missing, changed or not in its row.

    A row without hashes (written by hand, or by xenomask before they were kept) is taken as it is, but for a
    member without the query analysis that its score reads, or without its xenomask.json.
    """
    member, there = row["name"], member_files(detector, row["name"])
    record = f"`xenomask assemble --out {detector}` records the files that are there"
    if FILES not in row:
        refuse_stripped(detector / member)
        score = get_score(row["score"], row.get("options"))
        if score.reads and ANALYSIS not in there:
            raise XenomaskError(
                f"{detector / member} has no {ANALYSIS}, which its score {score.name} reads: copy it there, or run "
                f"`xenomask queries`; if there is none, {record}"
            )
        return None
    named = row[FILES]
    if type(named) is not dict or not all(type(h) is str for h in named.values()):
        raise ValueError(f"{FILES} of {member} is no table of hashes")
    for name in sorted(named.keys() | there.keys()):
        what = None
        if name not in there:
            what = "is missing"
        elif name not in named:
            what = "is not one of the files that detector.json names"
        elif (own := sha256(there[name])) != named[name]:
            what = f"is not the file that detector.json names (SHA-256 {own[:12]}..., not {named[name][:12]}...)"
        if what:
            where = detector / member / name
            raise XenomaskError(f"{where} {what}: copy the folder again, or, if it is meant, {record}")
    return named.get(WEIGHTS)


def tell_unnamed(detector: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Warns of a detector whose detector.json names no files, so that a changed one would not be noticed."""
    if unnamed := [row["name"] for row in rows if FILES not in row]:
        log.warning(
            "%s: its detector.json names no files of %s, so a changed one would not be noticed; `xenomask assemble "
            "--out %s` records the files that are there", detector, ", ".join(unnamed), detector,
        )  # fmt: skip
