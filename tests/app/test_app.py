"""The web page: what it shows is what the detector says, what is no photo is one line, and nothing is left behind."""

import json
import os
import re
import shutil
import urllib.error
import urllib.request
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image

from helpers.served import Server, exif_photo, hostile, scene
from helpers.video import write_clip
from xenomask.app import answers, page, session
from xenomask.app.files import KEPT, Files
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.scores import SCORES, get_score

needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio: pip install 'xenomask[app]'")


@pytest.fixture(scope="module")
def detector(tiny_detector) -> Detector:
    return Detector.from_folder(tiny_detector)


@pytest.fixture(scope="module")
def seen(detector) -> session.Seen:
    return session.detect("a.png", scene(), detector)


def test_read__is_what_the_detector_says(detector, seen):
    reading = session.read(seen)
    assert np.abs(reading.score_map.value - detector.detect(scene()).value).max() <= 1e-6
    for name in ("maskomaly", "rba", "eam"):
        value = detector.with_score(name).detect(scene()).value
        assert np.abs(session.read(seen, name).score_map.value - value).max() <= 1e-6


def test_read__lambda_mixes_anew_without_the_network(detector, seen):
    for mix in (0.0, 0.3, 1.0):
        own = detector.with_score(get_score("maskomaly", {"mix": mix}))
        assert np.abs(session.read(seen, "maskomaly", mix).score_map.value - own.detect(scene()).value).max() <= 1e-6
    same = session.read(seen, "entropy", 0.1).score_map.value  # another score has no lambda
    assert (same == session.read(seen, "entropy").score_map.value).all()


def test_read__bad_wishes_are_one_line(seen):
    with pytest.raises(XenomaskError, match="unknown score"):
        session.read(seen, "rbaa")
    for mix in (-0.1, 1.1, float("nan")):
        with pytest.raises(XenomaskError, match="not from 0 to 1"):
            session.read(seen, "maskomaly", mix)
    with pytest.raises(XenomaskError, match="not a finite number"):
        session.read(seen, threshold=float("inf"))


def test_pictures_and_components__follow_the_threshold(seen):
    value = session.read(seen).score_map.value.astype(np.float16)
    for share in (10, 50, 90):
        reading = session.read(seen, threshold=float(np.percentile(value, share)))
        found = session.found_in(reading, smallest=1)
        assert sum(f.area for f in found) == int((value > np.float16(reading.threshold)).sum())
        heat, laid = session.pictures(reading, found)
        assert heat.shape == laid.shape == (48, 80, 3) and heat.dtype == np.uint8
        assert len(session.table(found)) == min(len(found), session.BOXES)
        json.dumps(session.summary(reading, found), allow_nan=False)
    assert session.found_in(session.read(seen, threshold=1e4)) == []


def test_why__at_a_pixel_is_the_maps_value(seen):
    for score in SCORES:
        if score in ("uno", "maskomaly_specialised"):  # the tiny networks have neither
            continue
        reading = session.read(seen, score)
        answer = session.why(reading, (41, 17))
        assert answer.value == pytest.approx(float(reading.score_map.value[17, 41]), abs=1e-5)
        masks = session.query_masks(reading, answer)
        assert all(p.shape == (48, 80, 3) for p, _ in masks)
        assert f"{answer.value:.4f}" in session.in_words(answer)
        json.dumps(session.reasons(answer), allow_nan=False)
    with pytest.raises(XenomaskError, match="outside of the photo"):
        session.why(session.read(seen), (80, 0))


def test_choices__members_alone(detector):
    found = session.choices({"pair": detector})
    assert [*found] == ["pair", "pair, a alone", "pair, b alone"]
    alone = session.detect("x", scene(), found["pair, b alone"])
    assert len(alone.outputs) == 1


def test_example__scenes_are_drawn_anew_and_the_same():
    for name in session.EXAMPLES:
        assert session.example(name).shape == (*session.EXAMPLE_SIZE, 3)
        assert (session.example(name) == session.example(name)).all()
    with pytest.raises(XenomaskError, match="unknown example scene"):
        session.example("example 9")


def test_read_upload__photos_upright_and_clips(tmp_path):
    turned = session.read_upload(exif_photo(tmp_path / "t.png"))
    assert turned.shape == (40, 32, 3) and turned[:20].mean() > 250 > 5 > turned[20:].mean()
    clip = session.read_upload(write_clip(tmp_path / "c.mp4", 4))
    assert clip.shape == (48, 64, 3) and abs(float(clip.mean()) - 20) < 6


def test_read_upload__what_is_no_photo_is_one_line(tmp_path):
    for path, text in hostile(tmp_path).values():
        with pytest.raises(XenomaskError, match=re.escape(text)) as e:
            session.read_upload(path)
        assert "\n" not in str(e.value)
    large = tmp_path / "fat.png"
    with large.open("wb") as f:
        f.truncate(session.MAX_BYTES + 1)
    with pytest.raises(XenomaskError, match="larger than 32 MB"):
        session.read_upload(large)
    with pytest.raises(XenomaskError, match=r"^gone.png is no longer here: drop it again"):
        session.read_upload(tmp_path / "gone.png")


def test_page__what_is_missing_is_one_line(seen, detector, tmp_path):
    class Shown(Exception):
        def __init__(self, text, **_):
            super().__init__(text)

    class Parts(SimpleNamespace):
        def __getattr__(self, name):
            return self.__dict__.setdefault(name, MagicMock())

    gr, parts = MagicMock(Error=Shown, Request=SimpleNamespace, SelectData=SimpleNamespace), Parts(examples=[])
    page._connect(gr, MagicMock(), parts, {"tiny": detector}, Files(tmp_path))
    ask, look = (button.click.call_args[0][0] for button in (parts.ask, parts.go))
    request = SimpleNamespace(session_hash="a")
    with pytest.raises(Shown, match="^give both x and y of the pixel$"):
        ask((seen,), session.OWN, 0.6, None, 0, request)
    with pytest.raises(Shown, match=r"^gone.png is no longer here: drop it again$"):
        look(str(tmp_path / "gone.png"), "tiny", page.NOTHING, session.OWN, 0.6, 50, request)


def test_files__go_with_the_last_session_that_has_them(tmp_path):
    files, upload = Files(tmp_path), tmp_path / "u.png"
    upload.touch()
    for who in ("a", "b"):
        (files.new(who, "map") / "x.jpg").touch()
        files.take(who, upload)
    files.forget("a")
    assert upload.exists() and not (tmp_path / "session-a").exists() and [*tmp_path.glob("session-b/*/x.jpg")]
    other, third = tmp_path / "v.png", tmp_path / "w.png"
    other.touch()
    third.touch()
    files.take("b", other)  # another photo dropped, while the one before may wait in the queue
    files.take("b", upload)  # its turn has come
    assert upload.exists() and other.exists()
    files.take("b", third)
    assert upload.exists() and not other.exists() and third.exists()
    old = files.new("c", "map") / "old.jpg"
    old.touch()
    os.utime(old, (0, 0))
    files.new("b", "map")
    assert not old.exists()
    files.forget("b")
    files.forget("c")
    assert list(tmp_path.iterdir()) == []


def test_files__of_a_session_that_ended_before_its_answer_go_after_it(tmp_path):
    files, upload = Files(tmp_path), tmp_path / "u.png"
    upload.touch()
    with files.answer("a"), pytest.raises(XenomaskError), files.answer("a"):
        files.take("a", upload)
        files.forget("a")
        files.new("a", "map")
        raise XenomaskError("as a look may end")
    assert list(tmp_path.iterdir()) == [] and not files.gone and not files.answering
    with files.answer("a"):  # a browser that came back
        files.new("a", "map")
    assert len(list(tmp_path.glob("session-a/map-*"))) == 1


def test_files__the_newest_answers_stay(tmp_path):
    files = Files(tmp_path)
    made = [files.new("a", "map") for _ in range(KEPT + 3)]
    why = files.new("a", "why")
    assert sorted(tmp_path.glob("session-a/*")) == [*made[3:], why]


def test_own_mix__leaves_threshold_and_lambda_of_the_detector(detector):
    own = replace(detector.with_score(get_score("maskomaly", {"mix": 0.3})), thresholds={"default": {"value": 0.42}})
    seen = session.detect("a.png", scene(), own)
    assert session.own_mix(own) == 0.3 and session.own_mix(detector) is None
    for mix in (None, 0.3):
        assert session.read(seen, mix=mix).threshold == 0.42
    moved = session.read(seen, mix=0.6)
    assert (moved.threshold, moved.mix) == (0.5, 0.6)  # a threshold of another lambda would mean nothing
    plain = session.detect("a.png", scene(), replace(own.with_score("maskomaly"), thresholds=own.thresholds))
    assert session.read(plain, mix=0.6).threshold == 0.42


def test_draw__a_second_detector_keeps_its_own_lambda_until_the_slider_moves(detector, tmp_path):
    kept = tuple(
        session.detect("a.png", scene(), detector.with_score(get_score("maskomaly", {"mix": m}))) for m in (0.3, 0.9)
    )
    for mix, other in ((0.3, 0.9), (0.5, 0.5)):
        drawn = answers.draw(tmp_path, kept, session.OWN, mix, None, 1)
        shown = np.asarray(Image.open(drawn.maps[1].path)).astype(int)[5::11, 5::11]  # shown 11 times as large
        wanted = session.read(kept[1], mix=other)
        assert np.abs(shown - session.pictures(wanted, [])[0]).mean() < 6  # JPEG
        assert drawn.reading.mix == mix


@pytest.fixture(scope="module")
def server(tiny_detector, tmp_path_factory):
    if find_spec("gradio") is None:
        pytest.skip("needs gradio: pip install 'xenomask[app]'")
    folder = tmp_path_factory.mktemp("app")
    running = Server(tiny_detector, folder)
    yield running
    running.stop()


def chosen(detector: Path, score=session.OWN, mix=0.6, smallest=1) -> list:
    return [str(detector), "no other", score, mix, smallest]


def find(numbers: object, key: str) -> list:
    """All values of a key in nested JSON."""
    if isinstance(numbers, dict):
        return [v for k, v in numbers.items() if k == key] + [f for v in numbers.values() for f in find(v, key)]
    return [f for v in numbers for f in find(v, key)] if isinstance(numbers, list) else []


@pytest.mark.slow
@needs_gradio
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_http__a_photo_is_answered_with_the_detectors_numbers(server, tiny_detector, detector, tmp_path):
    photo = tmp_path / "a.png"
    Image.fromarray(scene()).save(photo)
    said = server.detect(photo, chosen=chosen(tiny_detector, "rba"))
    assert isinstance(said, dict), said
    value = detector.with_score("rba").detect(scene()).value
    assert said["max"] == pytest.approx(float(value.max()), abs=1e-5)
    assert (said["width"], said["height"], said["photo"]) == (80, 48, "a.png")
    assert not list(server.folder.glob("xenomask-app-*/tmp*"))  # gradio's own File leaves an empty file at each call
    half = value.astype(np.float16)
    assert sum(c["area"] for c in said["components"]) == int((half > np.float16(said["threshold"])).sum())
    url = next(u for u in find(server.last, "url") if u and u.endswith(".hdf5"))
    (tmp_path / "m.hdf5").write_bytes(urllib.request.urlopen(url, timeout=600).read())
    from xenomask.store import read_map

    assert (read_map(tmp_path / "m.hdf5") == half).all()


@pytest.mark.slow
@needs_gradio
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_http__what_is_no_photo_is_one_line_and_the_server_lives(server, tiny_detector, tmp_path):
    for name, (path, text) in hostile(tmp_path).items():
        said = server.detect(path, chosen=chosen(tiny_detector))
        assert isinstance(said, str) and text in said and "Traceback" not in said, (name, said)
        assert str(server.folder) not in said  # a path of the server
    assert server.process.poll() is None and server.get("/")


@pytest.mark.slow
@needs_gradio
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_http__files_outside_of_its_folder_are_not_served(server, tiny_detector):
    for path in ("/etc/passwd", str(Path(tiny_detector) / "detector.json"), str(Path(__file__))):
        with pytest.raises(urllib.error.HTTPError):
            server.get(f"/gradio_api/file={path}")
    data = [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, *chosen(tiny_detector)]
    call = f"{server.address}/gradio_api/call/detect"
    event = json.loads(server.curl("-H", "Content-Type: application/json", "-d", json.dumps({"data": data}), call))
    assert "event: error" in server.curl("-N", f"{call}/{event['event_id']}")


@pytest.mark.slow
@needs_gradio
@pytest.mark.parametrize("header", ["Host: evil.example", "Origin: http://evil.example"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_http__other_hosts_and_origins_are_refused_and_get_no_cors(server, header, method):
    url = f"{server.address}/gradio_api/upload"
    more = ("-H", "Access-Control-Request-Method: POST") if method == "OPTIONS" else ()
    said = server.curl("-i", "-X", method, "-H", header, *more, "-F", f"files=@{__file__}", url)
    assert re.match(r"HTTP/1.1 (403|421)", said) and "access-control" not in said.lower()
    assert not list(server.folder.rglob("test_app.py"))


@pytest.mark.slow
@needs_gradio
def test_page__asks_nobody_else(server):
    text = server.get("/").decode()
    for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", text):
        address = re.search(r"(?:src|href)=[\"']((?:https?:)?//[^\"']+)", tag)
        assert address is None or address[1].startswith(server.address), tag
    assert "fonts.googleapis.com" not in server.get("/theme.css").decode()


@pytest.mark.slow
@needs_gradio
def test_two_users__have_states_of_their_own_and_leave_nothing(server, tiny_detector, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others do on import is theirs
        from gradio_client import Client, handle_file  # pyright: ignore[reportMissingImports]
    photos = [tmp_path / f"{k}.png" for k in range(2)]
    for k, photo in enumerate(photos):
        Image.fromarray(scene(k, (48, 64 + 16 * k))).save(photo)
    one, two = (Client(server.address, verbose=False, download_files=False) for _ in range(2))
    for client, photo in zip((one, two), photos, strict=True):
        client.predict(handle_file(str(photo)), *chosen(tiny_detector), api_name="/detect")
    wishes = ("rba", 0.6, -0.5, 1)
    first, second = (c.predict(*wishes, api_name="/read")[-1] for c in (one, two))
    assert (first["photo"], first["width"]) == ("0.png", 64) and (second["photo"], second["width"]) == ("1.png", 80)
    words, *_ = one.predict("rba", 0.6, 3, 4, api_name="/why")
    assert "at 3,4" in words
    folders = list(server.folder.glob("xenomask-app-*/session-*"))
    assert len(folders) >= 2
    one.close()
    two.close()


@pytest.mark.slow
@needs_gradio
def test_end__leaves_no_file(server):
    server.stop()
    assert list(server.folder.glob("xenomask-app-*")) == []
    # gradio logs what it refuses itself (a name that is in no list) with a traceback; none goes through our code
    assert "xenomask/app" not in "".join(server.lines)
