"""Detector + video -> video with the map laid over it."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from xenomask.cli.common import (
    DEFAULT_DETECTOR,
    AlarmsOption,
    DetectorOption,
    DeviceOption,
    IgnoreOption,
    JsonOption,
    MemberOption,
    RefineOption,
    RuntimeOption,
    ScoreOption,
    ThresholdOption,
    choose_threshold,
    err_console,
    load_detector,
    named_region,
    out_console,
    progress,
    refuse_both,
    with_region,
    write_json,
)
from xenomask.errors import XenomaskError

app = typer.Typer()


@app.command(rich_help_panel="Predict")
def video(
    source: Annotated[str, typer.Argument(metavar="IN", help="a video file, a camera's number (0), an address "
                                          "(rtsp://, http://) or a folder of frames, sorted by name")],
    out: Annotated[Path, typer.Option(help="the video to write, .mp4 or .avi")],
    detector: DetectorOption = DEFAULT_DETECTOR,
    score: ScoreOption = None,
    member: MemberOption = None,
    refine: RefineOption = None,
    threshold: ThresholdOption = None,
    alarms: AlarmsOption = None,
    ignore: IgnoreOption = None,
    every: Annotated[int, typer.Option(min=1, metavar="K", help="process each K-th frame, hold the map between")] = 1,
    smooth: Annotated[Literal["none", "ema", "flow"], typer.Option(help="ema: exponential mean over time; flow: the "
                                                                   "same, moved along with the picture")] = "none",
    alpha: Annotated[float | None, typer.Option(help="share of the new map in that mean, default .5")] = None,
    fps: Annotated[float | None, typer.Option(min=0.01, max=240, help="rate of the written video; default: the "
                                              "source's, or 25")] = None,
    start: Annotated[int, typer.Option(min=0, metavar="S", help="leave out the first S frames")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="read N frames only")] = None,
    maps: Annotated[Path | None, typer.Option(help="folder for the raw maps of the processed frames")] = None,
    device: DeviceOption = None,
    runtime: RuntimeOption = None,
    json_file: JsonOption = None,
) -> None:  # fmt: skip
    """Find anomalies in a video or a camera's stream; Ctrl-C ends it with a whole file.

    Example: xenomask video drive.mp4 --out seen.mp4 --every 3 --smooth flow
    """
    refuse_both(threshold, alarms)
    _quiet_opencv()
    from xenomask.predict.writer import check_out

    if alpha is not None and smooth == "none":
        raise XenomaskError("--alpha is for --smooth ema and --smooth flow")
    check_out(out, source)
    from xenomask.predict.frames import open_source

    opened = open_source(source, start)
    region = named_region(ignore)
    from xenomask.predict.video import detect_video, stop_on_signals

    found = load_detector(detector, device, score, member, runtime, refine=refine)
    found = with_region(found, region)
    threshold, _ = choose_threshold(found, threshold, alarms)
    total = limit if opened.count is None else min(opened.count, limit or opened.count)
    with stop_on_signals() as stop, progress("video", total) as tick:
        result = detect_video(
            found, opened, out, threshold=threshold, every=every, smooth=smooth,
            alpha=0.5 if alpha is None else alpha, fps=fps, limit=limit, maps=maps, stop=stop, tick=tick,
        )  # fmt: skip
    _print_result(result, opened.live)
    write_json(json_file, {"score": found.score_name, "threshold": threshold, **asdict(result)})
    if result.trouble:
        raise XenomaskError(f"{result.trouble}; {out} holds the {result.frames['drawn']} frames before that")
    if result.stopped:
        err_console.print(f"note: stopped after {result.frames['drawn']} frames; {out} is whole so far", style="yellow",
                          soft_wrap=True)  # fmt: skip
    out_console.print(f"score {found.score_name}; video {out}", soft_wrap=True)


def _quiet_opencv() -> None:
    """Keeps OpenCV and FFmpeg from writing their own lines on stderr, but where the user asks for them."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _print_result(result, live: bool) -> None:
    table = Table("number", "value", title_justify="left")
    table.columns[1].justify = "right"
    for key, value in result.frames.items():
        if live or key not in ("dropped", "repeated"):
            table.add_row(f"frames {'processed' if key == 'looked_at' else key}", f"{value:,}")
    table.add_row("first detection, not counted below, ms", f"{result.first_ms:.1f}")
    for key, value in result.latency_ms.items():
        table.add_row(f"latency {key}, ms", f"{value:.1f}")
    for key, value in result.stages_ms.items():
        table.add_row(f"{key.replace('_', ' + ')}, median ms", f"{value:.1f}")
    table.add_row("frames a second", f"{result.fps:.2f}")
    out_console.print(table)
