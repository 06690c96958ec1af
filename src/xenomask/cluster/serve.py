"""serve: a detector behind HTTP, on Ray Serve, which distributes the requests, batches them and holds the queue.

    POST /objects   a picture's bytes -> its objects as JSON, as `detect --json` has them
    POST /overlay   a picture's bytes -> the overlay as JPEG
    POST /map       a picture's bytes -> the raw map (H, W), float16, as .npy
    GET  /health    what answers, once it can

What is wrong with a request is 400, 404, 405, 408 or 413 with {"error": one line}; where the queue is full, it is 503.
"""

import asyncio
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenomask.cluster.ray import connected
from xenomask.errors import XenomaskError, first_line

if TYPE_CHECKING:
    from xenomask.detector.prediction import Prediction
    from xenomask.detector.predictor import Predictor

LARGEST = 64 * 2**20  # bytes of a request's picture
PATIENCE = 30  # seconds in which it has to arrive
MOST_BYTES = 2**30  # of all pictures that a replica holds undecoded
ARRIVING = 256  # requests to a replica whose pictures are under way: they take no place of those that are complete
RETRY = 1  # seconds after which who was refused may try again
ANSWERS = ("objects", "overlay", "map")
NAME = "xenomask"


@dataclass(frozen=True)
class Service:
    """Where it listens and how it shares out the work; the defaults are one replica on this machine alone."""

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    cpus: int = 1  # a replica's
    gpus: float = 0
    batch: int = 4  # photos of one size go through the networks together
    wait: float = 0.01  # seconds that a photo waits for others
    queue: int = 64  # pictures that wait, of all replicas; further ones are refused by 503
    metrics_port: int | None = None  # of Prometheus' numbers, where Ray is started here

    @property
    def working(self) -> int:
        """Pictures that are in work in a replica: one batch in the networks, another decoded."""
        return 2 * self.batch

    @property
    def waiting(self) -> int:
        """A replica's part of the queue."""
        return -(-self.queue // self.replicas)


class Replica:
    """One process: the detector, opened once; requests come in, each is answered by its own Prediction.

    `threshold`: None is the detector's own.
    """

    def __init__(self, open_detector: Callable[[], "Predictor"], threshold: float | None, service: Service):
        self.detector, self.threshold = open_detector(), threshold
        most = min(service.batch, self.detector.largest_batch or service.batch)
        self.batches = _batches(self._predict, most, service.wait)
        self.room, self.waiting, self.queue = asyncio.Semaphore(service.working), 0, service.waiting
        self.held = 0  # bytes of pictures that are under way or wait

    async def __call__(self, request: Any) -> Any:
        """Answer one request; raises nothing that a request can cause."""
        try:
            status, answer = await self._answer(request)
        except XenomaskError as e:
            status, answer = 400, str(e)
        if status == 200:
            return answer
        return _json({"error": answer}, status, {"retry-after": str(RETRY)} if status == 503 else None)

    async def _answer(self, request: Any) -> tuple[int, Any]:
        what = request.url.path.strip("/")
        if what == "health":
            return 200, _json({"detector": self.detector.name, "score": self.detector.score_name})
        if what not in ANSWERS:
            return 404, f"no such address: POST a picture to /{', /'.join(ANSWERS)}"
        if request.method != "POST":
            return 405, f"POST a picture's bytes to /{what}"
        try:
            data = await asyncio.wait_for(self._body(request), PATIENCE)
        except TimeoutError:
            return 408, f"the picture did not arrive in {PATIENCE} s"
        except MemoryError:
            return 503, f"pictures of {MOST_BYTES >> 20} MB are under way already: try again later"
        if data is None:
            return 413, f"a picture may have {LARGEST >> 20} MB at most"
        try:
            return await self._answered(what, data)
        finally:
            self.held -= len(data)

    async def _body(self, request: Any) -> bytes | None:
        """A request's bytes, counted in `held`; None where they are too many, which are not read to their end.

        Raises MemoryError where all requests' together are more than MOST_BYTES. What is not returned is not counted.
        """
        if int(request.headers.get("content-length") or 0) > LARGEST:
            return None
        data, whole = bytearray(), False
        try:
            async for part in request.stream():
                if self.held + len(part) > MOST_BYTES:
                    raise MemoryError
                data += part
                self.held += len(part)
                if len(data) > LARGEST:
                    return None
            whole = True
            return bytes(data)
        finally:
            self.held -= 0 if whole else len(data)

    async def _answered(self, what: str, data: bytes) -> tuple[int, Any]:
        if self.room.locked() and self.waiting >= self.queue:
            return 503, f"{self.waiting} pictures wait already: try again later"
        self.waiting += 1
        try:
            await self.room.acquire()
        finally:
            self.waiting -= 1
        try:
            photo = await asyncio.to_thread(_decoded, data)
            found = await self.batches(photo)
            if isinstance(found, XenomaskError):
                raise found
            return 200, await asyncio.to_thread(_response, what, found)
        finally:
            self.room.release()

    def _predict(self, photos: list[Any]) -> "list[Prediction | XenomaskError]":
        """One answer a photo; an error belongs to the photo that caused it, not to those that came with it."""
        try:
            found = self.detector(photos)
        except XenomaskError as e:
            return [e] if len(photos) == 1 else [r for photo in photos for r in self._predict([photo])]
        return found if self.threshold is None else [replace(p, threshold=self.threshold) for p in found]


def _batches(predict: Callable[[list[Any]], list[Any]], most: int, wait: float) -> Any:
    """A coroutine function of one photo that waits for others and sends them through together (Ray Serve's)."""
    from ray import serve  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    @serve.batch(max_batch_size=most, batch_wait_timeout_s=wait)
    async def together(photos: list[Any]) -> list[Any]:
        return await asyncio.to_thread(predict, photos)

    return together


def _decoded(data: bytes) -> Any:
    """The photo (H, W, 3), opened where all pictures are, with its checks; XenomaskError for what is none."""
    from xenomask.datasets.read import read_photo

    if not data:
        raise XenomaskError("the request has no body: send the picture's bytes, as `curl --data-binary @street.jpg`")
    with tempfile.TemporaryDirectory(prefix="xenomask-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        try:
            return read_photo(path)
        except XenomaskError as e:
            raise XenomaskError(str(e).replace(str(path), "the picture")) from None


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    return _bytes(json.dumps(value, allow_nan=False).encode(), "application/json", status, headers)


def _bytes(body: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    from starlette.responses import Response  # pyright: ignore[reportMissingImports]  (comes with Ray Serve)

    return Response(body, status, headers, kind)


def _response(what: str, found: "Prediction") -> Any:
    import numpy as np
    from PIL import Image

    from xenomask.files import portable

    if what == "objects":
        H, W = found.score_map.value.shape
        objects = [] if found.threshold is None else [asdict(o) for o in found.objects]
        numbers = {"size": [H, W], "score": found.score_map.score, "threshold": found.threshold, "objects": objects}
        return _json(portable(numbers))
    buffer = io.BytesIO()
    if what == "overlay":
        Image.fromarray(found.overlay()).save(buffer, "jpeg", quality=90)
        return _bytes(buffer.getvalue(), "image/jpeg")
    np.save(buffer, found.score_map.value.astype(np.float16))
    return _bytes(buffer.getvalue(), "application/x-npy")


def need_serve() -> Any:
    """Ray Serve; raises XenomaskError where it is not installed."""
    try:
        from ray import serve  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
    except ImportError as e:
        raise XenomaskError(f"serve needs Ray Serve: pip install 'xenomask[serve]' ({first_line(e)})") from e
    return serve


@contextmanager
def start(
    open_detector: Callable[[], "Predictor"], service: Service, threshold: float | None = None,
    address: str | None = None,
) -> Iterator[str]:  # fmt: skip
    """The running service's address, while the context is open; it ends with the requests that are under way.

    `open_detector` is called once in each replica. On one machine Ray is started here, else `address` is the
    cluster's. Raises XenomaskError where Ray Serve is not installed, the port is taken, or a replica does not start.
    """
    serve = need_serve()
    with connected(address, service.metrics_port):
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            serve.start(http_options={"host": service.host, "port": service.port})
            deployment = serve.deployment(
                Replica, name=NAME, num_replicas=service.replicas, graceful_shutdown_timeout_s=PATIENCE,
                max_ongoing_requests=service.working + service.waiting + ARRIVING, max_queued_requests=ARRIVING,
                ray_actor_options={"num_cpus": service.cpus, "num_gpus": service.gpus},
            )  # fmt: skip
            serve.run(deployment.bind(open_detector, threshold, service), name=NAME, route_prefix="/")
            yield f"http://{service.host}:{service.port}"
            serve.delete(NAME)  # waits for the requests under way, which shutdown alone drops
        except RuntimeError as e:  # a replica that does not start, a port that is taken
            raise XenomaskError(f"the service did not start: {first_line(e)}") from e
        finally:
            serve.shutdown()
