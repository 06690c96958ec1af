"""The web page, served by a process of its own, and the photos that it is given."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.video import write_clip

SVG = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


def scene(seed=0, size=(48, 80)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def exif_photo(path: Path) -> Path:
    """A photo whose EXIF says: turn by 90 degrees; stored 40 wide, 32 high, its left half bright."""
    pixels = np.zeros((32, 40, 3), np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims to be that large; its pixels are missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def hostile(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no photo of a scene, and what must be said of each."""
    (folder / "s.svg").write_text(SVG)
    (folder / "s.jpg").write_text(SVG)
    (folder / "t.jpg").write_text("no picture at all")
    (folder / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("L", (5000, 40)).save(folder / "long.png")
    (folder / "bomb.png").write_bytes(png_of(20000, 20000))
    (folder / "large.png").write_bytes(png_of(6000, 6000))
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    (folder / "cut.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    write_clip(folder / "none.mp4", 0)
    whole = folder / "whole.png"
    Image.fromarray(scene(1, (200, 200))).save(whole)
    (folder / "cut.png").write_bytes(whole.read_bytes()[:5000])
    said = {
        "s.svg": "is not an image", "s.jpg": "is not an image", "t.jpg": "is not an image",
        "empty.png": "is empty (0 bytes)", "one.png": "1x1 pixels: less than 32",
        "long.png": "5000x40: more than 8 times",
        "bomb.png": "too large an image", "large.png": "6000x6000 pixels take", "list.mp4": "is not a video",
        "cut.mp4": "is not a video", "none.mp4": "is not a video, or cut", "cut.png": "is damaged",
    }  # fmt: skip
    return {name: (folder / name, text) for name, text in said.items()}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """`xenomask app` in a process of its own, with a temporary folder that can be looked into."""

    def __init__(self, detector: Path | str, folder: Path, *more: str, start=("-m", "xenomask.cli")):
        self.address, self.folder = f"http://127.0.0.1:{free_port()}", folder
        self.more = more
        environment = {**os.environ, "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, *start, "app", "--detector", str(detector), "--port",
                   self.address.rpartition(":")[2], "--device", "cpu", *more]  # fmt: skip
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if "open http" in line:
                self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout or []), daemon=True)
                self.reader.start()
                return
        raise AssertionError("".join(self.lines))

    def stop(self) -> None:
        """Ends it as a user would, and keeps what it said in `lines`."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(300)
        self.reader.join(60)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def get(self, path: str) -> bytes:
        return urllib.request.urlopen(f"{self.address}{path}", timeout=600).read()

    def curl(self, *arguments: str) -> str:
        done = subprocess.run(["curl", "-sS", "--max-time", "600", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def detect(self, photo: Path, **wishes) -> dict | str:
        """The HTTP API as docs/app.md has it: upload, call, answer. The JSON of `detect`, or the error's line."""
        name = json.loads(self.curl("-F", f"files=@{photo}", f"{self.address}/gradio_api/upload"))[0]
        data = [{"path": name, "meta": {"_type": "gradio.FileData"}}, *wishes.pop("chosen")]
        body = json.dumps({"data": data, **wishes})
        call = f"{self.address}/gradio_api/call/detect"
        event = json.loads(self.curl("-H", "Content-Type: application/json", "-d", body, call))["event_id"]
        said = self.curl("-N", f"{call}/{event}")
        kind, _, rest = said.partition("\ndata: ")
        answer = json.loads(rest.strip().splitlines()[0])
        self.last = answer
        return answer[-1] if "complete" in kind else str(answer)
