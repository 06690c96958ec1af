"""Videos: every frame once and in order, live ones without backlog, and whole files whatever happens."""

import errno
import json
import os
import resource
import shutil
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails, run
from helpers.video import SIZE, grey, write_clip
from xenomask.errors import XenomaskError
from xenomask.predict.frames import Source, open_source
from xenomask.predict.smooth import follow
from xenomask.predict.stages import frames_of
from xenomask.predict.video import detect_video, stop_on_signals
from xenomask.predict.writer import Recording
from xenomask.store import read_map
from xenomask.types import ScoreMap


class Fake:
    """A detector that says the same `value` of every pixel; keeps the brightness of what it has looked at."""

    scale = (0.0, 1.0)
    score_name = "fake"
    thresholds: dict = {}
    ignore = None

    def __init__(self, value=lambda look: 0.0, then=lambda look: None):
        self.value, self.then, self.levels = value, then, []

    def detect(self, image):
        self.levels.append(float(image[-8:].mean()))
        self.then(len(self.levels))
        return ScoreMap(np.full(image.shape[:2], self.value(len(self.levels) - 1), np.float32), "fake")

    def describe(self):
        return {"name": "fake"}


def write_frames(folder: Path, count: int) -> Path:
    folder.mkdir()
    for k in range(count):
        Image.fromarray(grey(k)).save(folder / f"{k:03d}.png")
    return folder


def shown(path: Path) -> list[float]:
    """The brightness of each frame of a video, below what is written on it."""
    capture, levels = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while True:
        there, image = capture.read()
        if not there:
            return levels
        levels.append(float(image[-8:].mean()))


def numbers(levels: list[float]) -> list[int]:
    """Which frames those are; a flat picture comes back from MPEG-4 up to 3 darker, twice here."""
    return [round((v + 3 - 20) / 12) for v in levels]


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 12)


@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_video__every_frame_once_in_order(tmp_path, clip, ending):
    out, fake = tmp_path / f"out.{ending}", Fake()
    result = detect_video(fake, open_source(str(clip)), out)
    assert numbers(fake.levels) == numbers(shown(out)) == list(range(12))
    assert result.frames == dict(read=12, dropped=0, looked_at=12, drawn=12, repeated=0, written=12)
    assert (result.stopped, result.trouble, result.video_fps) == (False, None, 10.0)
    assert result.first_ms > 0
    assert 0 < result.latency_ms["p50"] <= result.latency_ms["p90"] <= result.latency_ms["p99"]
    assert set(result.stages_ms) == {"read", "detect", "draw_write"} and result.fps > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"clip.mp4", out.name})


def test_video__the_first_detection_which_builds_graphs_is_counted_apart(tmp_path, clip):
    fake = Fake(value=lambda look: time.sleep(0 if look else 0.5) or 0.0)
    result = detect_video(fake, open_source(str(clip)), tmp_path / "o.avi")
    assert result.first_ms >= 500 > 4 * result.latency_ms["p99"] and result.fps > 12 / 0.5


def test_video__every_third_is_looked_at_and_its_map_held(tmp_path):
    folder, fake = write_frames(tmp_path / "frames", 7), Fake(value=lambda look: [0.0, 1.0, 0.0][look])
    result = detect_video(fake, open_source(str(folder)), tmp_path / "o.avi", every=3)
    assert numbers(fake.levels) == [0, 3, 6] and result.frames["looked_at"] == 3
    levels = shown(tmp_path / "o.avi")
    # at the scale's end the map covers four fifths of the frame by inferno's last colour, (252, 255, 164)
    expected = [20.0, 32, 44, *(0.2 * g + 0.8 * (252 + 255 + 164) / 3 for g in (56, 68, 80)), 92]
    assert np.abs(np.array(levels) - expected).max() < 3
    assert result.video_fps == 25


def test_video__start_limit_fps_and_maps(tmp_path, clip):
    fake, maps = Fake(value=lambda look: 0.25 * look), tmp_path / "maps"
    options: dict[str, Any] = dict(limit=5, every=2, maps=maps, fps=7.0)
    result = detect_video(fake, open_source(str(clip), 4), tmp_path / "o.mp4", **options)
    assert numbers(shown(tmp_path / "o.mp4"))[0] == 4 and numbers(fake.levels) == [4, 6, 8]
    assert result.frames["written"] == 5 and result.video_fps == 7
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FPS) == 7
    assert sorted(p.name for p in maps.glob("*.hdf5")) == ["000004.hdf5", "000006.hdf5", "000008.hdf5"]
    assert (read_map(maps / "000008.hdf5") == 0.5).all()
    assert json.loads((maps / "manifest.json").read_text())["start"] == 4
    with pytest.raises(XenomaskError, match=r"already holds maps \(000004.hdf5\): choose another --maps"):
        detect_video(fake, open_source(str(clip)), tmp_path / "p.mp4", maps=maps)
    assert not (tmp_path / "p.mp4").exists()


def test_video__odd_sizes_lose_their_last_row_and_column(tmp_path):
    clip = write_frames(tmp_path / "f", 1)
    Image.fromarray(grey(0, (47, 61))).save(clip / "000.png")
    detect_video(Fake(), open_source(str(clip)), tmp_path / "o.mp4")
    there, image = cv2.VideoCapture(str(tmp_path / "o.mp4")).read()
    assert there and image.shape == (46, 60, 3)


def test_files__are_read_ahead_by_a_bounded_number():
    given = []

    def images():
        for k in range(50):
            given.append(k)
            yield grey(0)

    source = Source("x", False, None, 50, 0, images())
    frames = frames_of(source, threading.Event(), depth=3)
    assert next(frames).number == 0
    time.sleep(0.2)
    assert len(given) <= 1 + 3
    assert [f.number for f in frames] == list(range(1, 50))


def test_live__the_newest_frame_wins_and_gaps_show_what_was_dropped():
    taken, all_given = threading.Event(), threading.Event()

    def images():
        yield grey(0)
        assert taken.wait(10)
        for k in range(1, 10):
            yield grey(k)
        all_given.set()

    frames = frames_of(Source("x", True, None, None, 0, images()), threading.Event())
    assert next(frames).number == 0
    taken.set()
    assert all_given.wait(10)
    rest = list(frames)
    assert [f.number for f in rest] == [9] and numbers([float(rest[0].image.mean())]) == [9]


def test_live__counts_drops_keeps_playing_time_and_tells_its_end(tmp_path):
    def images():
        for k in range(20):
            time.sleep(0.02)
            yield grey(k)
        raise XenomaskError("camera 7 gave no more frames after 20")

    fake = Fake(then=lambda look: time.sleep(0.1))
    begun = time.perf_counter()
    result = detect_video(fake, Source("camera 7", True, 50.0, None, 0, images()), tmp_path / "o.avi")
    seconds = time.perf_counter() - begun
    f = result.frames
    assert f["read"] == 20 and f["dropped"] > 0 and f["read"] == f["drawn"] + f["dropped"]
    assert f["written"] == f["drawn"] + f["repeated"] == len(shown(tmp_path / "o.avi"))
    assert f["written"] / 50 <= seconds and f["repeated"] > 0
    assert numbers(fake.levels) == sorted(set(numbers(fake.levels)))
    assert result.trouble == "camera 7 gave no more frames after 20"


def test_recording__holds_a_picture_until_the_next_ones_time(tmp_path):
    recording = Recording(tmp_path / "o.avi", 10.0, SIZE)
    for k, at in enumerate((100.0, 100.1, 100.5, 100.52)):
        recording.write(grey(k), at)
    recording.close(tmp_path / "o.avi")
    assert numbers(shown(tmp_path / "o.avi")) == [0, 1, 1, 1, 1, 2, 3]
    assert (recording.frames, recording.repeated) == (7, 3)


def test_stop__leaves_a_whole_file_of_the_frames_before(tmp_path, clip):
    stop = threading.Event()
    fake = Fake(then=lambda look: stop.set() if look == 4 else None)
    result = detect_video(fake, open_source(str(clip)), tmp_path / "o.mp4", stop=stop)
    assert result.stopped and numbers(shown(tmp_path / "o.mp4")) == [0, 1, 2, 3]
    with pytest.raises(XenomaskError, match="stopped before the first frame: nothing was written"):
        detect_video(fake, open_source(str(clip)), tmp_path / "p.mp4", stop=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "o.mp4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cli__a_signal_ends_it_with_a_whole_file(tmp_path, capsys, clip, monkeypatch, number):
    fake = Fake(then=lambda look: os.kill(os.getpid(), number) if look == 3 else None)
    monkeypatch.setattr("xenomask.cli.video.load_detector", lambda *_, **__: fake)
    before = signal.getsignal(number)
    code, out, err = run(capsys, "video", clip, "--out", tmp_path / "o.avi", "--json", tmp_path / "v.json")
    assert code == 0 and "note: stopped after 3 frames" in err, err
    assert numbers(shown(tmp_path / "o.avi")) == [0, 1, 2]
    said = json.loads((tmp_path / "v.json").read_text())
    assert said["stopped"] is True and said["frames"]["written"] == 3 and said["score"] == "fake"
    assert "latency p99" in out and signal.getsignal(number) is before


def test_signals__the_second_one_interrupts():
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def faked(monkeypatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr("xenomask.cli.video.load_detector", lambda *_, **__: fake)
    return fake


def test_cli__a_cut_file_is_told_and_what_was_read_is_whole(tmp_path, capsys, faked):
    clip = write_clip(tmp_path / "clip.avi", 20, (240, 320))
    cut = tmp_path / "cut.avi"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    code, out, err = run(capsys, "video", cut, "--out", tmp_path / "o.mp4")
    levels = numbers(shown(tmp_path / "o.mp4"))
    # the decoder makes what it can of the frame that was cut
    assert code == 2 and 1 < len(levels) < 20 and levels[:-1] == list(range(len(levels) - 1))
    assert err == (
        f"error: {cut} is damaged or cut: {len(levels)} of the 20 frames that it announces can be read; "
        f"{tmp_path / 'o.mp4'} holds the {len(levels)} frames before that"
    )
    assert "frames written" in out
    # an .mp4's index comes last: without it nothing can be decoded
    clip = write_clip(tmp_path / "clip.mp4", 20)
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:-200])
    err = fails(capsys, "video", tmp_path / "cut.mp4", "--out", tmp_path / "p.mp4")
    assert "is not a video, or cut so that nothing of it can be decoded" in err and not (tmp_path / "p.mp4").exists()


def test_cli__frames_of_another_size(tmp_path, capsys, faked):
    folder = write_frames(tmp_path / "frames", 3)
    Image.fromarray(grey(0, (30, 40))).save(folder / "002.png")
    err = fails(capsys, "video", folder, "--out", tmp_path / "o.mp4")
    assert "002.png is 40x30, the frames before it 64x48: frames must be of one size" in err
    assert numbers(shown(tmp_path / "o.mp4")) == [0, 1]


def test_cli__a_damaged_frame(tmp_path, capsys, faked):
    folder = write_frames(tmp_path / "frames", 3)
    (folder / "002.png").write_bytes(b"hello")
    assert "002.png is not an image" in fails(capsys, "video", folder, "--out", tmp_path / "o.mp4")
    assert numbers(shown(tmp_path / "o.mp4")) == [0, 1]


def test_cli__bad_sources(tmp_path, capsys, faked, clip):
    def message(source, *more):
        text = fails(capsys, "video", source, "--out", tmp_path / "o.mp4", *more)
        assert not (tmp_path / "o.mp4").exists() and not faked.levels
        return text

    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.avi").touch()
    (tmp_path / "folder").mkdir()
    assert "no such video" in message(tmp_path / "nowhere.mp4")
    assert "text.mp4 is not a video" in message(tmp_path / "text.mp4")
    assert "empty.avi is not a video" in message(tmp_path / "empty.avi")
    assert "no frames in" in message(tmp_path / "folder")
    assert "clip.mp4 has 12, --start skips 12" in message(clip, "--start", 12)
    assert "no camera 4711" in message("4711")
    assert "addresses start with rtsp://" in message("ftp://x/y.mp4")
    text = message("rtsp://user:secret@127.0.0.1:9/x?channel=1")
    assert "cannot open rtsp://127.0.0.1:9/x?channel=1: no answer" in text and "secret" not in text


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ffconcat", "list.ts", "list.sdp"])
def test_cli__a_playlist_is_not_followed(tmp_path, capsys, faked, clip, name):
    texts = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n",
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{clip}'\n",
        "list.ts": "G" + f"\nfile '{clip}'\n".ljust(187) + "G",
        "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    (tmp_path / name).write_text(texts[name])
    text = fails(capsys, "video", tmp_path / name, "--out", tmp_path / "o.mp4")
    assert f"{name} is not a video that holds its own frames" in text and not faked.levels


def test_cli__bad_outputs_and_options(tmp_path, capsys, faked, clip):
    before = clip.read_bytes()
    (tmp_path / "d.mp4").mkdir()
    for out, message in (
        ("o.mkv", "must end in .mp4 or .avi"),
        ("d.mp4", "is a folder"),
        ("clip.mp4", "is the video that is read"),
        ("clip.mp4/o.mp4", "cannot write into folder"),
    ):
        assert message in fails(capsys, "video", clip, "--out", tmp_path / out)
    on = "video", clip, "--out", tmp_path / "o.mp4"
    assert "--alpha is for --smooth ema and --smooth flow" in fails(capsys, *on, "--alpha", 0.3)
    assert "alpha must be above 0 and at most 1, not 0" in fails(capsys, *on, "--smooth", "ema", "--alpha", 0)
    with pytest.raises(XenomaskError, match="every must be 1 or more, not 0"):
        detect_video(Fake(), open_source(str(clip)), tmp_path / "o.mp4", every=0)
    assert clip.read_bytes() == before and not (tmp_path / "o.mp4").exists()


def test_cli__a_disk_that_fills_up(tmp_path, capsys, faked, clip, monkeypatch):
    real, asked = shutil.disk_usage, []

    def usage(path):
        asked.append(path)
        return real(path)._replace(free=2**20 if len(asked) > 5 else 2**40)

    monkeypatch.setattr("xenomask.predict.writer.shutil.disk_usage", usage)
    text = fails(capsys, "video", clip, "--out", tmp_path / "o.mp4")
    assert "the disk has less than 32 MB left; " in text and "holds the 5 frames" in text
    assert numbers(shown(tmp_path / "o.mp4")) == [0, 1, 2, 3, 4]


def test_a_write_that_fails_unseen_is_found_at_the_end(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, *SIZE, 3), np.uint8)
    source = Source("x", False, None, 30, 0, (image for image in noise))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, old[1]))  # what a quota does; OpenCV does not tell
    try:
        with pytest.raises(XenomaskError, match="read back; is the disk or a quota full"):
            detect_video(Fake(), source, tmp_path / "o.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_a_detector_that_fails_later_leaves_the_frames_before(tmp_path, clip):
    def fail(look):
        if look == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    result = detect_video(Fake(then=fail), open_source(str(clip)), tmp_path / "o.mp4")
    assert "No space left" in (result.trouble or "") and numbers(shown(tmp_path / "o.mp4")) == [0, 1, 2, 3]


@pytest.fixture
def stream():
    """The address of a camera's web page, MJPEG over HTTP: eight frames, then the connection ends."""

    class Camera(BaseHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for k in range(8):
                data = cv2.imencode(".jpg", grey(k))[1].tobytes()
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
                try:
                    self.wfile.write(head + data + b"\r\n")
                except OSError:  # who looked has left
                    return
                time.sleep(0.02)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/camera"
    server.shutdown()
    thread.join()
    server.server_close()


def test_cli__a_stream_is_live_and_its_end_is_told(tmp_path, capsys, faked, stream):
    code, out, err = run(capsys, "video", stream, "--out", tmp_path / "o.avi", "--limit", 4)
    assert code == 0 and "frames dropped" in out, err
    text = fails(capsys, "video", stream, "--out", tmp_path / "p.avi")
    assert f"{stream} gave no more frames after 8: it ended, or the connection is lost" in text
    levels = numbers(shown(tmp_path / "p.avi"))
    assert levels == sorted(levels) and levels[-1] == 7


def test_ema__answers_a_step_as_its_formula_says():
    image = grey(0)
    zero, one = np.zeros(SIZE, np.float32), np.ones(SIZE, np.float32)
    held = follow(None, image, zero, "ema", 0.3)
    for n in range(1, 6):
        held = follow(held, image, one, "ema", 0.3)
        assert held.value == pytest.approx(1 - 0.7**n, abs=1e-6)
        assert (follow(held, image, None, "ema", 0.3).value == held.value).all()
    assert (follow(held, image, zero, "none").value == 0).all()


def scene(shift: int, size=(96, 640)) -> tuple[np.ndarray, np.ndarray]:
    """A blurred texture that has moved to the right, and a map whose one blob moves with it."""
    noise = np.random.default_rng(0).integers(0, 255, (size[0], 2 * size[1], 3), np.uint8)
    wide = cv2.GaussianBlur(noise, (0, 0), 4)
    wide = cv2.normalize(wide, np.empty_like(wide), 0, 255, cv2.NORM_MINMAX)
    y, x = np.mgrid[: size[0], : size[1]]
    blob = np.exp(-((x - 300 - shift) ** 2 + (y - 48) ** 2) / 400)
    left = size[1] // 2 - shift
    return np.ascontiguousarray(wide[:, left : left + size[1]]), blob.astype(np.float32)


def test_flow__moves_the_map_as_the_picture_moves():
    (first, before), (second, truth) = scene(0), scene(14)
    held = follow(None, first, before, "flow", 0.4)
    carried = follow(held, second, None, "flow", 0.4).value
    assert np.abs(carried - truth).max() < 0.2 * np.abs(before - truth).max()
    # looked at again: the mean of what is carried and what is found; what came in at the left is the found alone
    mixed = follow(held, second, np.full_like(truth, 0.5), "flow", 0.4).value
    assert mixed[:, 20:] == pytest.approx(0.4 * 0.5 + 0.6 * carried[:, 20:], abs=1e-6)
    assert (mixed[:, :4] == 0.5).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (8, 9), (17, 16), (47, 61)])
def test_flow__small_and_odd_sizes(size):
    value = np.random.default_rng(0).random(size, np.float32)
    held = follow(None, grey(3, size), value, "flow", 0.5)
    assert follow(held, grey(3, size), None, "flow", 0.5).value == pytest.approx(value, abs=1e-5)


def test_cli__the_shipped_detector_on_three_frames(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", 3)
    code, out, err = run(
        capsys, "video", clip, "--out", tmp_path / "o.mp4", "--detector", "nano", "--member", "nano-s",
        "--every", 2, "--device", "cpu",
        "--smooth", "flow", "--alpha", 0.7,
    )  # fmt: skip
    assert code == 0 and "score maskomaly; video" in out, err
    assert len(shown(tmp_path / "o.mp4")) == 3
