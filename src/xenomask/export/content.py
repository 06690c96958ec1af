"""The metadata of an exported file, and the hash of its content: written by write.py, read by read.py."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError, unknown
from xenomask.picture_files import check_scene
from xenomask.types import Size

VERSION = 1  # of the metadata
# before the SHA-256 of all that an exported file holds (with its .bin), this text and 64 zeros in its place
CONTENT, MARK = "content", b"sha256-of-content:"
FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
OUTPUTS = {"map": ["score"], "queries": ["class_logits", "mask_logits"]}


def check_request(
    path: Path, format: str, size: Size, *, queries: bool = False, dynamic: bool = False, batch: int | None = 1
) -> None:
    """Raises XenomaskError for what no file can be, whatever the detector."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if path.suffix != FORMATS[format]:
        raise XenomaskError(f"{path.name}: a file of format {format} ends in {FORMATS[format]}")
    check_scene(size, "the photo that is asked for")
    if queries and dynamic:
        raise XenomaskError("--queries takes what the network takes, whose size is fixed: leave --dynamic out")
    if dynamic and batch != 1:
        raise XenomaskError("photos of any size go through the networks one by one: leave --dynamic or --batch out")


def marked(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with a place for the hash of the file that will hold them."""
    return {**metadata, CONTENT: MARK.decode() + 64 * "0"}


def content_of(data: bytes, *others: str) -> tuple[str, int]:
    """The text that names a file's content (and its other files' hashes), and where in its bytes the hash belongs.

    Raises ValueError where `marked` left not one such place.
    """
    at = data.find(MARK)
    if at < 0 or data.find(MARK, at + 1) >= 0:
        raise ValueError("it has no one place for the hash of its content")
    at += len(MARK)
    digest = hashlib.sha256(memoryview(data)[:at])
    digest.update(64 * b"0")
    digest.update(memoryview(data)[at + 64 :])
    for other in others:
        digest.update(other.encode())
    return MARK.decode() + digest.hexdigest(), at


def stamped(data: bytes, *others: str) -> tuple[bytes, str]:
    """A file's bytes with the hash of its content in the place that `marked` left, and the text that now stands there.

    Raises ValueError as `content_of` does.
    """
    content, at = content_of(data, *others)
    return b"".join([data[:at], content[len(MARK) :].encode(), memoryview(data)[at + 64 :]]), content
