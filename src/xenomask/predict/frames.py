"""A file, camera, stream or folder -> its frames, RGB uint8 (H, W, 3)."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from xenomask.datasets import read_photo
from xenomask.errors import XenomaskError
from xenomask.picture_files import FORMATS, is_picture

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # their header counts the frames; others' only tells a duration
TIMEOUT_MS = 10_000  # of a stream's answers
CREDIBLE_FPS = (0.01, 240)  # a clock's ticks (1000, 90000) are named as a rate where a file has none


@dataclass(frozen=True)
class Source:
    """Frames, and what is known of them before the first is read; None where the source does not say."""

    # as it may be shown and stored: without a stream's password
    name: str
    # whether frames come by the clock, so that one not taken at once is stale
    live: bool
    fps: float | None
    # how many frames there will be
    count: int | None
    # how many were skipped before the first
    start: int
    # raises XenomaskError where the source breaks off, after the frames before that
    frames: Generator[np.ndarray, None, None]


def open_source(text: str, start: int = 0) -> Source:
    """The frames from number `start` (0 = first) on of a file, a camera ("0"), an address or a folder of pictures.

    Raises XenomaskError for what is not there, cannot be decoded or holds no frame.
    """
    if text.isdecimal():
        return _open_camera(int(text), start)
    if "://" in text:
        return _open_stream(text, start)
    path = Path(text)
    if path.is_dir():
        return _open_folder(path, start)
    if not path.is_file():
        raise XenomaskError(f"no such video: {path}; give a file, a folder of frames, a camera's number or an address")
    return _open_file(path, start)


def _open_folder(folder: Path, start: int) -> Source:
    files = sorted(p for p in folder.iterdir() if is_picture(p))
    if not files:
        raise XenomaskError(f"no frames in {folder}: it holds no picture ({', '.join(FORMATS)})")
    if start >= len(files):
        raise XenomaskError(f"no frames: {folder} has {len(files)}, --start skips {start}")

    def frames() -> Generator[np.ndarray, None, None]:
        size = None
        for path in files[start:]:
            image = read_photo(path)
            size = size or image.shape
            if image.shape != size:
                raise XenomaskError(
                    f"{path} is {image.shape[1]}x{image.shape[0]}, the frames before it {size[1]}x{size[0]}: "
                    "frames must be of one size"
                )
            yield image

    return Source(str(folder), False, None, len(files) - start, start, frames())


def is_container(start: bytes) -> bool:
    """Whether a file that begins with these bytes (1024, if there are as many) holds its video itself.

    By content, whatever its name: FFmpeg also takes playlists (m3u8, ffconcat, sdp, ...), and opens the files and
    addresses that they list.

    >>> is_container(b"....ftypisom"), is_container(b"#EXTM3U\\nfile"), is_container(b"ffconcat version")
    (True, False, False)
    """
    box, first = start[4:8], start[:4]
    return (
        box in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")  # mp4, mov
        or (first == b"RIFF" and start[8:12] in (b"AVI ", b"AVIX"))
        or first in (b"\x1aE\xdf\xa3", b"OggS", b"FLV\x01")  # mkv, webm
        or first in (b"\x30\x26\xb2\x75", b"DKIF", b"YUV4")  # asf (wmv), ivf, y4m
        or first == b"\x00\x00\x00\x01" or start[:3] == b"\x00\x00\x01"  # MPEG-1, -2 and -4, H.264, HEVC
        or (len(start) > 752 and start[:753:188] == b"GGGGG")  # MPEG transport stream: packets of 188 bytes
    )  # fmt: skip


def _open_file(path: Path, start: int) -> Source:
    with path.open("rb") as f:
        head = f.read(1024)
    if not is_container(head):
        raise XenomaskError(f"{path} is not a video that holds its own frames (mp4, mov, avi, mkv, webm, ts, ...); "
                            "playlists are not followed")  # fmt: skip
    # an absolute path, so that no name is taken for a protocol or a pattern of pictures
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise XenomaskError(f"{path} is not a video, or cut so that nothing of it can be decoded")
    count = _count(capture)
    if count is not None and start >= count:
        raise XenomaskError(f"no frames: {path} has {count}, --start skips {start}")
    left = None if count is None else count - start

    def frames() -> Generator[np.ndarray, None, None]:
        read, reached = 0, 0
        try:
            for _ in range(start):  # seeking is not exact in every container, and this decodes only
                if capture.grab():
                    read += 1
            while (image := _next(capture)) is not None:
                read += 1
                reached = _position(capture)
                yield image
        finally:
            capture.release()
        # NOTE: where the header names a duration alone, its count is a guess that is off by far for variable rates;
        # there the time of the last frame counts too.
        seen = read if path.suffix.lower() in COUNTED else max(read, reached)
        if count is not None and count - seen > max(2, count // 100):
            raise XenomaskError(f"{path} is damaged or cut: {read} of the {count} frames that it announces can be read")

    return Source(str(path), False, _fps(capture), left, start, frames())


def _open_stream(address: str, start: int) -> Source:
    try:
        parts = urlsplit(address)
    except ValueError as e:
        raise XenomaskError(f"{address} is no address: {e}") from None
    name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.scheme not in SCHEMES:
        raise XenomaskError(f"cannot open {name}: addresses start with {', '.join(f'{s}://' for s in SCHEMES)}")
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise XenomaskError(f"cannot open {name}: no answer, no such stream, or none that can be decoded")
    count = _count(capture)
    if count is None:
        return Source(name, True, _fps(capture), None, start, _streamed(capture, name, start))
    return Source(name, False, _fps(capture), count - start, start, _streamed(capture, name, start, count))


def _open_camera(number: int, start: int) -> Source:
    capture = cv2.VideoCapture(min(number, 2**31 - 1))
    if not capture.isOpened():
        raise XenomaskError(f"no camera {number}, or another program holds it; a file of that name is ./{number}")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # frames that wait in the driver are stale
    return Source(f"camera {number}", True, _fps(capture), None, start, _streamed(capture, f"camera {number}", start))


def _streamed(
    capture: cv2.VideoCapture, name: str, start: int, count: int | None = None
) -> Generator[np.ndarray, None, None]:
    """Frames until there are no more; XenomaskError where that is not after `count`."""
    read = 0
    try:
        for _ in range(start):
            if capture.grab():
                read += 1
        while (image := _next(capture)) is not None:
            read += 1
            yield image
    finally:
        capture.release()
    if count is None or count - read > max(2, count // 100):
        raise XenomaskError(f"{name} gave no more frames after {read}: it ended, or the connection is lost")


def _next(capture: cv2.VideoCapture) -> np.ndarray | None:
    there, image = capture.read()
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if there else None


def _count(capture: cv2.VideoCapture) -> int | None:
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 2**53 else None


def _fps(capture: cv2.VideoCapture) -> float | None:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if CREDIBLE_FPS[0] <= fps <= CREDIBLE_FPS[1] else None


def _position(capture: cv2.VideoCapture) -> int:
    """How many frames the time of the last one comes to, at the rate that the file names."""
    frames = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 * capture.get(cv2.CAP_PROP_FPS)
    return round(frames) + 1 if math.isfinite(frames) else 0
