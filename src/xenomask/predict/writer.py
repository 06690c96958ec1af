"""Pictures -> a video file."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from xenomask.errors import XenomaskError
from xenomask.files import make_dir

# what the FFmpeg in opencv-python 5.0 writes without a licence or a device; H.264 is not among that
CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
RESERVE = 32 * 2**20  # bytes left free on the disk: an .mp4 cannot be played without the index that is written last


def check_out(out: Path, source: str) -> None:
    """Raises XenomaskError, before any work, where `out` cannot become a video or is the video that is read."""
    if out.suffix.lower() not in CODECS:
        raise XenomaskError(f"--out {out} must end in {' or '.join(CODECS)}")
    if out.is_dir():
        raise XenomaskError(f"--out {out} is a folder; name a file in it")
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise XenomaskError(f"--out {out} is the video that is read: choose another name")
    make_dir(out.parent)


class Recording:
    """A video file being written; one thread at a time. `frames` counts all pictures in it, `repeated` among them."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int]):
        """Raises XenomaskError where no file of that size (height, width) and rate can be written."""
        self.path, self.fps = path, fps
        self.frames = self.repeated = 0
        self._began, self._last = None, None
        code = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, size[::-1])
        if not self._writer.isOpened():
            raise XenomaskError(
                f"cannot write a video of {size[1]}x{size[0]} at {fps:g} frames a second as {path.suffix}"
            )

    def write(self, picture: np.ndarray, at: float | None = None) -> None:
        """Appends an RGB picture; with its time (seconds), the one before is first repeated until then.

        Raises XenomaskError where the disk is nearly full: the file can then still be closed.
        """
        if shutil.disk_usage(self.path.parent).free < RESERVE:
            raise XenomaskError(f"cannot write into {self.path.parent}: the disk has less than {RESERVE >> 20} MB left")
        if at is not None:
            self._began = at if self._began is None else self._began
            while self._last is not None and self.frames < round((at - self._began) * self.fps):
                self._writer.write(self._last)
                self.frames += 1
                self.repeated += 1
        self._last = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        self._writer.write(self._last)
        self.frames += 1

    def close(self, name: Path) -> None:
        """Ends the file; raises XenomaskError, calling it `name`, where not all of it reads back.

        OpenCV says nothing of a write that failed.
        """
        self._writer.release()
        reader = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        there = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() and reader.grab() else 0
        reader.release()
        if there != self.frames:
            raise XenomaskError(
                f"cannot write {name}: {there} of its {self.frames} frames read back; is the disk or a quota full?"
            )
