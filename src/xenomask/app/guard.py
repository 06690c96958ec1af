"""Who may talk to the page: an ASGI layer around all of it, which knows nothing of gradio.

A browser sends what any page asks it to, to this server too. So requests that name another host (DNS rebinding), come
from another origin (cross-site posts) or would fill the disk are refused before anything reads them.
"""

import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

QUOTA = 512 * 2**20  # bytes of all files that sessions have uploaded or been answered with
PER_REQUEST = 33 * 2**20  # one photo of 32 MB and the form around it


def host_of(authority: str) -> str:
    """The host of a Host header, without its port and brackets, in lower case.

    >>> host_of("LocalHost:7860"), host_of("[::1]:80"), host_of("::1")
    ('localhost', '::1', '::1')
    """
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return (authority if authority.count(":") > 1 else authority.partition(":")[0]).lower()


def _address(host: str) -> Any:
    try:
        return ip_address(host)
    except ValueError:
        return None


class Guard:
    """The layer: `bound` is the address that is listened on, `names` are further host names of this server.

    On a loopback address, only loopback names are ours; elsewhere any IP address is (a rebound name is never one),
    and this machine's name.
    """

    def __init__(self, app: Any, folder: Path, bound: str, names: Iterable[str] = (), quota: int = QUOTA):
        self.app, self.folder, self.quota, self.arriving = app, folder, quota, 0
        at = _address(host_of(bound))
        self.local = host_of(bound) == "localhost" or (at is not None and at.is_loopback)
        own = () if self.local else (socket.gethostname(), socket.getfqdn(), bound)
        self.names = {"localhost", *(n.lower() for n in (*own, *names))}

    def is_own(self, host: str) -> bool:
        """Whether a request that names this host means us."""
        at = _address(host)
        return host in self.names or (at is not None and (at.is_loopback or not self.local))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin1").lower(): v.decode("latin1") for k, v in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused:
            await _answer(scope, send, *refused)
            return
        size = int(headers.get("content-length", 0))
        self.arriving += size
        try:
            await self.app(scope, receive, send)
        finally:
            self.arriving -= size

    def _refused(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Status and line for what is not let in."""
        host, origin, site = (headers.get(k, "") for k in ("host", "origin", "sec-fetch-site"))
        if not self.is_own(host_of(host)):
            return 421, f"this server is not {host!r}; start it with --allow-host {host_of(host)} if it is to be"
        if origin and origin.partition("://")[2].lower() != host.lower():
            return 403, f"requests from pages of {origin!r} are not answered"
        if site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            return 403, "requests from pages of other sites are not answered"
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return None
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()):
            return 411, "say how long the request is (Content-Length)"
        if int(length) > PER_REQUEST:
            return 413, f"a request of more than {PER_REQUEST >> 20} MB is not taken"
        if self._stored() + self.arriving + int(length) > self.quota:
            return 507, "too many files of others wait here; try again later"
        return None

    def _stored(self) -> int:
        total = 0
        for path in self.folder.rglob("*"):
            try:
                total += path.stat().st_size if path.is_file() else 0
            except OSError:  # another thread removed it
                continue
        return total


async def _answer(scope: Scope, send: Send, status: int, line: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = (line + "\n").encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
