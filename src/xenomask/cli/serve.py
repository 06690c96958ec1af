"""The detector as a service."""

import signal
import threading
from functools import partial
from typing import Annotated

import typer

from xenomask.cli.common import (
    DEFAULT_DETECTOR,
    AlarmsOption,
    DeviceOption,
    RuntimeOption,
    ScoreOption,
    ThresholdOption,
    choose_threshold,
    load_detector,
    out_console,
    refuse_both,
    say,
)
from xenomask.cli.fleet import everywhere

app = typer.Typer()


@app.command(rich_help_panel="Predict")
def serve(
    detector: Annotated[str, typer.Argument(help="folder, exported file, name or hf:org/name")] = DEFAULT_DETECTOR,
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0: this network may use it")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="processes that share the work, each with its own networks")] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="of a replica")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="photos of one size that go through the networks together")] = 4,
    wait: Annotated[float, typer.Option(min=0, max=10_000, help="milliseconds that a photo waits for others")] = 10,
    queue: Annotated[int, typer.Option(min=1, help="requests that wait; further ones get status 503")] = 64,
    metrics_port: Annotated[int | None, typer.Option(min=1, max=65535, help="for Prometheus: /metrics there")] = None,
    score: ScoreOption = None,
    threshold: ThresholdOption = None,
    alarms: AlarmsOption = None,
    device: DeviceOption = None,
    runtime: RuntimeOption = None,
    ray_address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="a Ray cluster's; default: one of this "
                                                    "machine is started")] = None,
) -> None:  # fmt: skip
    """A service on Ray Serve: POST a picture to /objects, /overlay or /map. Ctrl-C ends it once all are answered.

    Example: xenomask serve --port 8000, then curl --data-binary @street.jpg http://127.0.0.1:8000/objects
    """
    from xenomask.cluster.serve import Service, need_serve, start
    from xenomask.opening import open_detector

    refuse_both(threshold, alarms)
    need_serve()
    found = load_detector(detector, device, score, None, runtime)  # what is wrong is said here, not in a replica
    threshold, rate = choose_threshold(found, threshold, alarms)
    if threshold is None:
        say(f"no threshold is stored for score {found.score_name}: /objects names none; give one by --threshold")
    gpus = 1 if any(str(m.network.device).startswith("cuda") for m in found.members) else 0
    service = Service(host, port, replicas, cpus, gpus, batch, wait / 1000, queue, metrics_port)
    opened = partial(open_detector, everywhere(detector), device, score, runtime=runtime)
    ended = threading.Event()
    with start(opened, service, threshold, ray_address) as address:
        signal.signal(signal.SIGTERM, lambda *_: ended.set())  # after Ray, which sets its own
        signal.signal(signal.SIGINT, lambda *_: ended.set())
        limit = f", threshold {threshold:.3f}{rate}" if threshold is not None else ""
        out_console.print(f"{found.name} answers at {address}{limit} (Ctrl-C ends)", soft_wrap=True)
        ended.wait()
