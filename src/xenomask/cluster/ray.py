"""ray: a data set split over a pool of Ray Data actors, on one machine or a cluster; the maps lie in one folder.

Each actor opens the detector once. A task is a few frames; the task of an actor that is lost is run again by another,
which leaves alone what is written. As a map takes its name only once it is whole, and the same frame gives the same
bytes, the folder ends up as if nothing had been lost.
"""

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenomask.datasets import Dataset, Frame
from xenomask.errors import XenomaskError
from xenomask.types import Tick, nothing

if TYPE_CHECKING:  # an actor sets its number of threads before numba is imported
    from xenomask.detector.predictor import Predictor

TASK = 16  # frames: what is done again when an actor is lost, at most
TRIES = 5  # times that actors may die of one task
SHARED = "; detector, data and output must lie at paths that all machines of the cluster see"
# While Ray is ours: its usage is not reported, and its C++ part does not complain of what Ray Data itself does.
SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
STORE = 256 * 2**20  # bytes of Ray's object store on one machine: what travels is names


@dataclass(frozen=True)
class Pool:
    """How many actors, and what each is given."""

    actors: int
    cpus: int = 1
    gpus: int = 0


def need_ray() -> Any:
    """Ray with its data library; raises XenomaskError where it is not installed."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise XenomaskError(f"--engine ray needs Ray: pip install 'xenomask[ray]' ({e})") from e
    return ray


@contextmanager
def connected(address: str | None = None, metrics_port: int | None = None) -> Iterator[Any]:
    """Ray, connected to the cluster at HOST:PORT (auto: the one of this machine) or, by default, started here.

    The one started here has Prometheus' metrics at `metrics_port`, if that is given. $RAY_ADDRESS counts as given; a
    Ray that this process has started already is used and left running. Raises XenomaskError where Ray is not installed
    and where no cluster answers.
    """
    ray = need_ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    _check_address(address)
    own = {} if address else {"num_cpus": os.cpu_count(), "object_store_memory": STORE, "include_dashboard": False}
    if own and metrics_port:
        own["_metrics_export_port"] = metrics_port
    with _environment(SILENT):
        try:
            ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
        except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as e:
            where = f"connect to Ray at {address}" if address else "start Ray on this machine"
            raise XenomaskError(f"cannot {where}: {_last_line(e)}") from e
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables that are not set, and takes them back."""
    added = {k: v for k, v in values.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for k in added:
            del os.environ[k]


def _check_address(address: str | None) -> None:
    """Says at once what Ray would say after a minute."""
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise XenomaskError(
            f"Ray address {address!r} is not HOST:PORT (as `ray start --head` prints it) or auto; run this on a "
            "machine of the cluster, or through `ray job submit`"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as e:
        raise XenomaskError(
            f"no Ray cluster answers at {address} ({e}): start one with `ray start --head`, or leave --ray-address out"
        ) from e


def choose_pool(ray: Any, actors: int | None, cpus: int, on_gpu: bool) -> Pool:
    """As many actors as asked for, or as the cluster holds: one a GPU where it has any and `on_gpu`, else by CPUs.

    Raises XenomaskError where more are asked for than there is room for: Ray would never stop waiting.
    """
    has = ray.cluster_resources()
    gpus = int(has.get("GPU", 0)) if on_gpu else 0
    room = min(gpus or math.inf, int(has.get("CPU", 0)) // cpus)
    if (actors or 1) > room:
        kind = f"{cpus} CPUs" + (" and a GPU each" if gpus else " each")
        raise XenomaskError(
            f"{actors or 1} workers of {kind} do not fit: the cluster has {has.get('CPU', 0):.0f} CPUs"
            f"{f' and {gpus} GPUs' if gpus else ''}; ask for fewer (--workers, --worker-cpus)"
        )
    return Pool(actors or int(room), cpus, 1 if gpus else 0)


class Actor:
    """One worker: the detector, opened once; called with some frames, it writes the maps that are not there yet.

    What is wrong is returned and not raised: Ray would wrap it, log it, and start the actor again.
    """

    def __init__(self, open_detector: Callable[[], "Predictor"], data: Dataset, out: Path, loo: bool, cpus: int):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # as the command line has it
        os.environ.setdefault("NUMBA_NUM_THREADS", str(cpus))  # Ray sets OMP_NUM_THREADS alone
        from xenomask.predict.photos import open_maps
        from xenomask.store.manifest import MANIFEST

        self.data, self.out, self.loo, self.error = data, out, loo, ""
        try:
            if not (out / MANIFEST).is_file():  # made by whoever deals out the work
                raise XenomaskError(f"no {out / MANIFEST}")
            self.detector = open_detector()
            open_maps(self.detector, data, out, loo)  # another detector at the same path is refused
        except XenomaskError as e:
            self.error = f"worker on {socket.gethostname()}: {e}{SHARED}"

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        frames = [_frame(*row) for row in zip(rows["id"], rows["image"], rows["label"], strict=True)]
        return {"id": [f.id for f in frames], "error": self._look(frames)}

    def _look(self, frames: Sequence[Frame]) -> list[str]:
        """What was wrong with each frame; "" where its map is there."""
        if self.error:
            return [self.error] * len(frames)
        # An actor that dies leaves this file: what kills every actor must not be tried for ever.
        tries = self.out / f".{frames[0].id}.tries"
        with tries.open("ab") as f:
            f.write(b".")
            count = f.tell()
        try:
            if count > TRIES:
                return [_deadly(frames)] * len(frames)
            return [self._one(f) for f in frames]
        finally:
            tries.unlink(missing_ok=True)

    def _one(self, frame: Frame) -> str:
        from xenomask.store import check_photo, map_path
        from xenomask.store.manifest import frame_digest, keep_map

        path = map_path(self.out, frame.id)
        if frame.image is not None and not frame.image.is_file():
            return f"worker on {socket.gethostname()}: no such photo: {frame.image}{SHARED}"
        try:
            if path.is_file():
                check_photo(path, frame.image)
                return ""
            own: Any = self.detector
            own = own.opened("queries").without_frame(frame.id) if self.loo and frame.label else own
            found = own.detect(self.data.sample(frame).image)
            keep_map(self.out, frame, found, frame_digest(frame))
        except XenomaskError as e:
            return str(e)
        return ""


def _deadly(frames: Sequence[Frame]) -> str:
    span = frames[0].id + (f" to {frames[-1].id}" if len(frames) > 1 else "")
    return (
        f"{TRIES} workers died one after the other at frame {span}: out of memory (fewer --workers), or a photo that "
        "crashes its decoder; `xenomask score` without --engine shows which"
    )


def _row(frame: Frame) -> dict[str, str]:
    return {"id": frame.id, "image": str(frame.image or ""), "label": str(frame.label or "")}


def _frame(name: str, image: str, label: str) -> Frame:
    return Frame(str(name), Path(image) if image else None, Path(label) if label else None)


def score_dataset(
    ray: Any,
    detector: "Predictor",
    open_detector: Callable[[], "Predictor"],
    data: Dataset,
    out: Path,
    pool: Pool,
    *,
    leave_one_out: bool = False,
    tick: Tick = nothing,
) -> int:
    """Writes out/<id>.hdf5 for every frame that has none yet, as `predict.photos.score_dataset`; returns how many.

    `open_detector` (picklable) opens in an actor what `detector` is here. Raises XenomaskError for a folder of other
    maps, for a frame that cannot be read, for actors that do not see detector, data or output, and where they die
    again and again.
    """
    from xenomask.predict.photos import open_maps
    from xenomask.store import ENDING, map_ids

    done = open_maps(detector, data, out, leave_one_out)
    todo = [f for f in data.frames if f.id not in done]
    for _ in range(len(data.frames) - len(todo)):
        tick()
    if not todo:
        return 0
    for old in out.glob(".*.tries"):  # of a run that was ended
        old.unlink(missing_ok=True)
    size = max(1, min(TASK, len(todo) // (4 * pool.actors)))
    arguments = (open_detector, replace(data, frames=()), out, leave_one_out, pool.cpus)
    with _quiet(ray):
        # Ray Data restarts actors and their tasks without a limit, unless told otherwise
        found = ray.data.from_items([_row(f) for f in todo], override_num_blocks=math.ceil(len(todo) / size))
        found = found.map_batches(
            Actor, batch_size=size, fn_constructor_args=arguments, num_cpus=pool.cpus, num_gpus=pool.gpus or None,
            compute=ray.data.ActorPoolStrategy(size=pool.actors, max_tasks_in_flight_per_actor=2),
        )  # fmt: skip
        try:
            for row in found.iter_rows():
                if row["error"]:
                    raise XenomaskError(row["error"])
                tick()
        except ray.exceptions.RayError as e:
            raise XenomaskError(
                f"the work on Ray ended: {_last_line(e)}; the same command goes on where it stopped"
            ) from e
    ids = {f.id for f in todo}
    if missing := sorted(ids.difference(map_ids(out))):
        raise XenomaskError(
            f"{len(missing)} maps are not in {out} ({missing[0]}, ...): do the workers write elsewhere?"
        )
    for part in out.glob(f".*.part.*{ENDING}"):  # what a lost actor had begun
        if part.name.partition(".part.")[2].removesuffix(ENDING) in ids:
            part.unlink(missing_ok=True)
    return len(todo)


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Keeps Ray Data's bars and remarks back: the progress of a command is one line."""
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, log.level
    context.enable_progress_bars = context.print_on_execution_start = False
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before[:2]
        log.setLevel(before[2])


def _last_line(e: BaseException) -> str:
    """The line that says it, below the traceback of a worker.

    >>> _last_line(RuntimeError("Traceback:\\n  File x\\nValueError: no"))
    'ValueError: no'
    """
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(e).__name__
