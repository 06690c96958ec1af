"""xenomask serve: what a request may send and what it gets; the service itself where Ray Serve is installed."""

import argparse
import asyncio
import concurrent.futures
import io
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from helpers.served import free_port, hostile
from xenomask.cluster import serve
from xenomask.detector import Detector
from xenomask.errors import XenomaskError


class Request:
    """What a replica reads of Starlette's."""

    method, url = "POST", argparse.Namespace(path="/objects")

    def __init__(self, parts: list[bytes], length: str | None = None, late: asyncio.Event | None = None):
        self.parts, self.headers, self.late = parts, {} if length is None else {"content-length": length}, late

    async def stream(self):
        if self.late:
            await self.late.wait()
        for part in self.parts:
            yield part


def picture(size: tuple[int, int] = (40, 64), kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def test_body__is_read_up_to_its_limit(replica, monkeypatch):
    monkeypatch.setattr(serve, "LARGEST", 5)
    assert asyncio.run(replica._body(Request([b"ab", b"c"]))) == b"abc"
    assert asyncio.run(replica._body(Request([b"abc"] * 2))) is None  # the header said nothing, or lied
    assert asyncio.run(replica._body(Request([], "6"))) is None
    assert replica.held == 3


def test_body__of_all_requests_together_is_limited(replica, monkeypatch):
    monkeypatch.setattr(serve, "MOST_BYTES", 10)
    replica.held = 7
    with pytest.raises(MemoryError):
        asyncio.run(replica._body(Request([b"ab", b"cd"])))
    assert replica.held == 7


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


@pytest.fixture
def replica(monkeypatch):
    """One with room for one picture and one that waits; a picture is in work until its event is set."""
    monkeypatch.setattr(serve, "_decoded", lambda data: data)
    monkeypatch.setattr(serve, "_response", lambda what, found: found)
    found: Any = serve.Replica.__new__(serve.Replica)
    found.room, found.waiting, found.queue, found.done = asyncio.Semaphore(1), 0, 1, asyncio.Event()
    found.held = 0

    async def batches(photo):
        await found.done.wait()
        return XenomaskError("bad") if photo == b"bad" else photo

    found.batches = batches
    return found


def test_answer__pictures_under_way_take_no_place_and_a_full_queue_is_503(replica):
    async def ask_all():
        late = asyncio.Event()
        slow = [asyncio.create_task(replica._answer(Request([b"slow"], late=late))) for _ in range(5)]
        work, waits = (asyncio.create_task(replica._answer(Request([k]))) for k in (b"a", b"b"))
        await asyncio.sleep(0.05)
        assert (await replica._answer(Request([b"c"])))[0] == 503
        replica.done.set()
        assert [await work, await waits] == [(200, b"a"), (200, b"b")]
        late.set()
        codes = sorted([code for code, _ in await asyncio.gather(*slow)])
        assert codes[0] == 200 and set(codes) <= {200, 503} and replica.waiting == replica.held == 0

    asyncio.run(ask_all())


def test_answer__errors_and_clients_that_hang_up_give_their_place_back(replica):
    async def ask_all():
        work, waits = (asyncio.create_task(replica._answer(Request([k]))) for k in (b"a", b"b"))
        await asyncio.sleep(0.05)
        for task in (waits, work):
            task.cancel()
        await asyncio.gather(work, waits, return_exceptions=True)
        replica.done.set()
        with pytest.raises(XenomaskError, match="bad"):
            await replica._answer(Request([b"bad"]))
        assert await replica._answer(Request([b"c"])) == (200, b"c") and replica.waiting == replica.held == 0

    asyncio.run(ask_all())


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


def send(port: int, head: str, body: bytes = b"") -> socket.socket:
    """A connection over which this was sent; nothing was read."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(f"{head} HTTP/1.1\r\nHost: x\r\n".encode() + body)
    return client


def code_of(client: socket.socket) -> int:
    with closing(client):
        return int((client.recv(100).split() or [b"", b"0"])[1])


def length(photo: bytes, sent: int | None = None) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(photo) + photo[:sent]


def cut(client: socket.socket) -> None:
    """Ends it as a killed client's machine does: by a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.slow
def test_service__stays_up_whatever_its_clients_do(tiny_detector, tmp_path):
    pytest.importorskip("ray.serve", reason="needs pip install 'xenomask[serve]'")
    from xenomask.opening import open_detector

    port, photo, large = free_port(), picture(), picture((600, 900))
    opened = partial(open_detector, str(tiny_detector), "cpu")
    with serve.start(opened, serve.Service(port=port, batch=1, queue=8), threshold=0.0) as address:
        want = ask(f"{address}/objects", photo)
        assert want[0] == 200

        def still_answers() -> None:
            began = time.perf_counter()
            assert ask(f"{address}/objects", photo) == want and ask(f"{address}/health")[0] == 200
            assert time.perf_counter() - began < 20

        slow = [send(port, "POST /objects", length(photo, 10)) for _ in range(40)]  # they send no more
        began = time.perf_counter()
        still_answers()

        unread = [send(port, "POST /map", length(large)) for _ in range(8)]
        still_answers()

        for sent in (0, 50, None):
            for client in [send(port, "POST /map", length(large, sent)) for _ in range(8)]:
                cut(client)
        still_answers()

        files = hostile(tmp_path)
        del files["long.png"]  # a photo here: only the web page refuses its shape
        for path, _ in files.values():
            code, answer = ask(f"{address}/objects", path.read_bytes())
            assert code == 400 and "\n" not in json.loads(answer)["error"] and str(tmp_path) not in str(answer), path
        form = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + photo + b"\r\n--x--\r\n"
        for body in (b"", b'{"image": "/etc/passwd"}', b"\x80\x04.", form, photo[:-60]):
            assert ask(f"{address}/overlay", body)[0] == 400
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert code_of(send(port, f"{method} /objects", length(photo))) == 405, method
        for path in ("/", "/objects/../x", "/%2e%2e/etc/passwd", "/objects%00", "//"):
            assert code_of(send(port, f"POST {path}", length(photo))) == 404, path
        assert code_of(send(port, "POST /objects", b"Content-Length: -5\r\n\r\n")) == 400
        assert code_of(send(port, "nonsense", length(photo))) == 400
        assert code_of(send(port, "POST /objects", b"Content-Length: %d\r\n\r\n" % (serve.LARGEST + 1))) == 413
        endless = send(port, "POST /objects", b"Transfer-Encoding: chunked\r\n\r\n")
        part = b"100000\r\n" + bytes(2**20) + b"\r\n"
        for _ in range((serve.LARGEST >> 20) + 1):
            endless.sendall(part)
        assert code_of(endless) == 413
        still_answers()

        def crowd(_: int) -> tuple[int, str | None]:
            try:
                with urllib.request.urlopen(urllib.request.Request(f"{address}/map", large), timeout=120) as answer:
                    return answer.status, answer.read()[:0].decode()
            except urllib.error.HTTPError as e:
                assert "error" in json.loads(e.read())
                return e.code, e.headers["retry-after"]

        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            found = list(pool.map(crowd, range(200)))
        assert set(found) == {(200, ""), (503, "1")} and found.count((200, "")) >= 8
        still_answers()

        assert {code_of(client) for client in slow} == {408} and time.perf_counter() - began < 120
        assert {code_of(client) for client in unread} <= {200, 503}
        still_answers()
