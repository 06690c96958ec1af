"""xenomask serve: what a request may send and what it gets; the service itself where Ray Serve is installed."""

import asyncio
import io
import json
import threading
import urllib.error
import urllib.request
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from xenomask.cluster import serve
from xenomask.detector import Detector
from xenomask.errors import XenomaskError


class Request:
    """What a replica reads of Starlette's."""

    def __init__(self, parts: list[bytes], length: str | None = None):
        self.parts, self.headers = parts, {} if length is None else {"content-length": length}

    async def stream(self):
        for part in self.parts:
            yield part


def picture(size: tuple[int, int] = (40, 64), kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def test_body__is_read_up_to_its_limit(monkeypatch):
    monkeypatch.setattr(serve, "LARGEST", 5)
    assert asyncio.run(serve._body(Request([b"ab", b"c"]))) == b"abc"
    assert asyncio.run(serve._body(Request([b"abc"] * 2))) is None  # the header said nothing, or lied
    assert asyncio.run(serve._body(Request([], "6"))) is None


@pytest.mark.parametrize(("data", "said"), [(b"", "no body"), (b"hello", "the picture is not an image"),
                                            (picture()[:90], "the picture is damaged")])  # fmt: skip
def test_decoded__what_is_no_picture_is_one_line_without_a_path_of_ours(data, said):
    with pytest.raises(XenomaskError, match=said) as e:
        serve._decoded(data)
    assert "/tmp" not in str(e.value)


def test_predict__a_photo_that_is_refused_fails_nobody_elses(tiny_detector):
    replica = serve.Replica.__new__(serve.Replica)
    replica.detector, replica.threshold = Detector.from_folder(tiny_detector), 0.5
    good = np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8)
    first, bad, last = cast("Any", replica._predict([good, good[:1, :1], good[::-1]]))
    assert isinstance(bad, XenomaskError) and "1x1" in str(bad)
    assert (first.score_map.value == replica.detector.detect(good).value).all() and last.threshold == 0.5


def test_serve__without_ray_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(XenomaskError, match=r"pip install 'xenomask\[serve\]'"):
        serve.need_serve()


def ask(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


@pytest.mark.slow
def test_service__answers_as_the_detector_does_and_drains_at_its_end(tiny_detector):
    pytest.importorskip("ray.serve", reason="needs pip install 'xenomask[serve]'")
    from xenomask.opening import open_detector

    opened = partial(open_detector, str(tiny_detector), "cpu")
    photo = picture()
    want = opened()(Image.open(io.BytesIO(photo)))
    codes = []
    with serve.start(opened, serve.Service(port=8127, batch=2), threshold=0.0) as address:
        code, data = ask(f"{address}/map", photo)
        assert code == 200 and np.abs(np.load(io.BytesIO(data)) - want.score_map.value).max() < 2e-3
        code, data = ask(f"{address}/objects", photo)
        answer = json.loads(data)
        assert code == 200 and answer["size"] == [40, 64]
        assert [tuple(o["box"]) for o in answer["objects"]] == [o.box for o in want.objects_above(0.0)]
        code, data = ask(f"{address}/overlay", photo)
        assert code == 200 and Image.open(io.BytesIO(data)).size == (64, 40)
        assert [ask(f"{address}/{p}", d)[0] for p, d in
                [("objects", b"hello"), ("objects", b""), ("objects", None), ("x", photo), ("health", None)]
                ] == [400, 400, 405, 404, 200]  # fmt: skip
        late = [threading.Thread(target=lambda: codes.append(ask(f"{address}/map", photo)[0])) for _ in range(4)]
        for thread in late:
            thread.start()
        while not codes:
            pass
    for thread in late:
        thread.join()
    assert codes == [200] * 4
