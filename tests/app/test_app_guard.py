"""Who the page talks to: hosts, origins, sizes."""

import asyncio
from pathlib import Path

import pytest

from xenomask.app.guard import Guard


async def inner(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def status(guard: Guard, method="GET", kind="http", **headers: str) -> int:
    """What a request with these headers is answered (of a websocket: its closing code)."""
    sent = []

    async def send(message):
        sent.append(message)

    pairs = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    asyncio.run(guard({"type": kind, "method": method, "path": "/", "headers": pairs}, None, send))  # pyright: ignore
    return sent[0].get("status") or sent[0].get("code")


def guard(folder: Path, bound="127.0.0.1", **more) -> Guard:
    return Guard(inner, folder, bound, **more)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "127.0.0.9"])
def test_host__loopback_names_are_ours(tmp_path, host):
    assert status(guard(tmp_path), host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "192.0.2.7:7860", "", "0.0.0.0", "localhost."],
)
def test_host__others_are_not(tmp_path, host):
    assert status(guard(tmp_path), host=host) == 421


def test_host__on_a_network_addresses_and_named_hosts_are(tmp_path):
    open_to_all = guard(tmp_path, "0.0.0.0", names=["Cars.example"])
    assert status(open_to_all, host="192.0.2.7:7860") == status(open_to_all, host="cars.example") == 200
    assert status(open_to_all, host="evil.example") == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://localhost:7860"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_origin__of_another_page_is_refused(tmp_path, origin, method):
    assert status(guard(tmp_path), method, host="127.0.0.1:7860", origin=origin, content_length="1") == 403


def test_origin__of_the_page_itself_is_answered(tmp_path):
    own = {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860", "content_length": "5"}
    assert status(guard(tmp_path), "POST", **own, sec_fetch_site="same-origin", sec_fetch_mode="cors") == 200
    # behind a proxy that speaks TLS
    assert status(guard(tmp_path), "POST", **{**own, "origin": "https://127.0.0.1:7860"}) == 200


def test_fetch__from_other_sites_is_refused_but_a_link_is_followed(tmp_path):
    other = {"host": "127.0.0.1:7860", "sec_fetch_site": "cross-site"}
    assert status(guard(tmp_path), **other, sec_fetch_mode="no-cors") == 403
    assert status(guard(tmp_path), **other, sec_fetch_mode="navigate") == 200


def test_websocket__of_another_page_is_closed(tmp_path):
    assert status(guard(tmp_path), kind="websocket", host="127.0.0.1", origin="http://evil.example") == 1008


def test_size__requests_and_all_uploads_are_bounded(tmp_path):
    small = guard(tmp_path, quota=1000)
    own = {"host": "127.0.0.1"}
    assert status(small, "POST", **own, content_length="900") == 200
    assert status(small, "POST", **own, content_length=str(10**9)) == 413
    assert status(small, "POST", **own) == status(small, "POST", **own, content_length="-1") == 411
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "photo").write_bytes(bytes(200))
    assert status(small, "POST", **own, content_length="900") == 507
    assert status(small, "POST", **own, content_length="800") == status(small, **own) == 200


def test_size__what_arrives_at_once_counts_together(tmp_path):
    small = guard(tmp_path, quota=1000)
    seen = []

    async def slow(scope, receive, send):
        small.app = inner
        seen.append(await asyncio.to_thread(status, small, "POST", host="127.0.0.1", content_length="500"))
        await inner(scope, receive, send)

    small.app = slow
    assert status(small, "POST", host="127.0.0.1", content_length="600") == 200
    assert seen == [507]
    assert status(small, "POST", host="127.0.0.1", content_length="500") == 200
