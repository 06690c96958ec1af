"""Videos of grey frames, each told by its brightness."""

from pathlib import Path

import cv2
import numpy as np

SIZE = (48, 64)


def grey(k: int, size=SIZE) -> np.ndarray:
    """Frame k, told by its brightness."""
    return np.full((*size, 3), 20 + 12 * k, np.uint8)


def write_clip(path: Path, count: int, size=SIZE, fps=10.0) -> Path:
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, size[::-1])
    for k in range(count):
        writer.write(grey(k, size))
    writer.release()
    return path
