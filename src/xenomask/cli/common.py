"""What every command shares: option types, progress, tables, opening what the user named."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from xenomask.cli.completion import DATASETS, DETECTORS, SCORES, names
from xenomask.errors import XenomaskError, printable

if TYPE_CHECKING:
    from xenomask.detector import Detector
    from xenomask.export import ExportedDetector
    from xenomask.run.pipeline import Profile


class _PlainConsole(Console):
    """Shows every text as it is: a file called pic[night].jpg or a:car:.jpg is no markup and no picture.

    What is meant as markup is said so, by `marked`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def marked(text: str, *names: object) -> Text:
    """Rich's markup, with names in the places of {} that are shown as they are."""
    return Text.from_markup(text.format(*(escape(printable(str(n))) for n in names)), emoji=False)


out_console, err_console = _PlainConsole(), _PlainConsole(stderr=True)

DetectorOption = Annotated[
    str,
    typer.Option("--detector", autocompletion=names(DETECTORS), help="detector folder, a name that `xenomask "
                 "detectors` lists, hf:org/name, or a file of `xenomask export`"),
]  # fmt: skip
DatasetOption = Annotated[
    str,
    typer.Option("--dataset", autocompletion=names(DATASETS), help="a name that `xenomask datasets` lists; folder is "
                 "one of your own"),
]  # fmt: skip
RootOption = Annotated[Path, typer.Option("--root", help="folder of the data set")]
SplitOption = Annotated[str, typer.Option("--split", help="split, where the data set's layout has them")]
ResizeOption = Annotated[str | None, typer.Option("--resize", help="WxH on loading, e.g. 512x256 for a squeezed copy")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; default: cuda where there is one")]
RuntimeOption = Annotated[
    str | None, typer.Option("--runtime", help="torch (default), compiled, graphs (CUDA), openvino or onnxruntime")
]
AutoRuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", help="auto (openvino where its graphs are kept or worth building, else torch), torch, "
                 "compiled, graphs (CUDA), openvino or onnxruntime"),
]  # fmt: skip
KernelOption = Annotated[
    str, typer.Option("--kernel", help="what computes scores from masks: auto, numba (CPU), triton (GPU), torch")
]
PrecisionOption = Annotated[
    str, typer.Option("--precision", help="of the networks: float32, bfloat16, or on GPUs float16")
]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="photos of one size that networks see together")]
ProfileOption = Annotated[bool, typer.Option("--profile", help="print how long each stage was busy and waited")]


def check_json(path: Path | None) -> Path | None:
    """Raises XenomaskError where --json cannot be written, before the work is done for nothing."""
    from xenomask.files import make_dir, refuse_folder

    if path is not None:
        refuse_folder(path)
        make_dir(path.parent)
    return path


JsonOption = Annotated[
    Path | None, typer.Option("--json", callback=check_json, help="also write the numbers to this file")
]
ScoreOption = Annotated[
    str | None, typer.Option("--score", autocompletion=names(SCORES), help="read the networks by this score instead")
]
LooksOption = Annotated[
    str | None,
    typer.Option("--looks", help="look several times and average the maps: mirror (the mirror image too), shortest "
                 "edges in pixels (288,384), or both (mirror,288,384: four looks)"),
]  # fmt: skip
MemberOption = Annotated[str | None, typer.Option("--member", help="use this member alone")]
CheckpointOption = Annotated[Path, typer.Option("--checkpoint", help="checkpoint folder")]


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Any]:
    """A bar on stderr where that is a terminal; yields the function that moves it one on. None: no end is known."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err_console, disable=not err_console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """'512x256' -> (256, 512)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise XenomaskError(f"size {text!r} is not WIDTHxHEIGHT, such as 512x256")
    return int(parts[1]), int(parts[0])


def parse_shard(text: str) -> tuple[int, int]:
    """'2/8' -> (2, 8)."""
    parts = text.split("/")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts):
        raise XenomaskError(f"shard {text!r} is not I/N, such as 2/8 for the second of eight")
    return int(parts[0]), int(parts[1])


def read_looks(text: str) -> tuple[tuple[int, ...], bool]:
    """'mirror,288,384' -> ((288, 384), True), for `Detector.with_looks`."""
    from xenomask.models.looks import parse_looks

    return parse_looks(text)


def choose_device(name: str | None, runtime: str = "") -> str:
    """Chooses once, says what (`runtime`: how that goes on); raises XenomaskError for a device that is not there."""
    import torch

    from xenomask.models.device import check_device

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name is None else name
    check_device(chosen)
    err_console.print(f"device {chosen}{'' if name else ' (choose with --device)'}{runtime}", style="dim")
    return chosen


def load_detector(
    detector: str, device: str | None, score: str | None = None, member: str | None = None,
    runtime: str | None = None, *, precision: str = "float32", work: tuple[tuple[int, int], int, int] | None = None,
    kernel: str | None = None, looks: str | None = None,
) -> "Detector | ExportedDetector":  # fmt: skip
    """Opens a detector folder or a Hub's in the runtime asked for, or an exported file in its own.

    `work` is (size of the photos, how many, how many together): the runtime is then auto where none is named. `kernel`
    is said on stderr where it is given.
    """
    from xenomask.export import is_exported

    shown = None if looks is None else read_looks(looks)  # before anything is loaded
    exported, auto = is_exported(detector), work is not None and runtime in (None, "auto")
    if exported and precision != "float32":
        raise XenomaskError(f"{detector} computes in what it was exported in: leave --precision out")
    if exported:
        found = _open_file(detector, device, None if auto else runtime)
    else:
        found = _open_folder(detector, device, "torch" if auto else runtime, precision, quiet=auto)
    if member:
        found = found.only(member)
    if shown is not None:
        if found.thresholds and not score:
            err_console.print(f"note: the stored threshold of {found.name} is for one look and is left out",
                              style="yellow", soft_wrap=True)  # fmt: skip
        found = found.with_looks(*shown)
    if work and auto and not exported:
        found = _in_best_runtime(found, *work)
    if kernel is not None:
        found = _with_kernel(found, kernel)
    return found.with_score(score) if score else found


def _with_kernel(found: Any, kernel: str) -> Any:
    """Chooses once, and says what and why; networks without masks have no such choice."""
    from xenomask.detector import Detector
    from xenomask.scores.paths import choose

    if not isinstance(found, Detector):
        if kernel != "auto":
            raise XenomaskError(f"{found.name} computes its scores in its own graph: leave --kernel out")
        return found
    chosen = found.with_kernel(kernel)
    if not all(m.network.per_pixel for m in chosen.used):
        path = choose(kernel, chosen.used[0].network.device)
        err_console.print(f"score kernel {path.name}: {path.why} (choose with --kernel)", style="dim", soft_wrap=True)
    return chosen


def _in_best_runtime(found: Any, size: tuple[int, int], frames: int, batch: int) -> "Detector":
    """Chooses once, and says what and why."""
    from xenomask.models.runtimes import choose_runtime

    networks = [m.network for m in found.used if not m.network.shown.mirror]  # the others share their graphs
    device = str(next(networks[0].module.parameters()).device)
    chosen, why = choose_runtime(networks, size, frames, batch, device)
    err_console.print(f"runtime {chosen}: {why} (choose with --runtime)", style="dim", soft_wrap=True)
    return found.with_runtime(chosen, device)


def _open_folder(
    detector: str, device: str | None, runtime: str | None, precision: str = "float32", *, quiet: bool = False
) -> "Detector":
    from xenomask.cli.hub import open_remote
    from xenomask.detector import Detector
    from xenomask.hub import is_remote
    from xenomask.models.runtimes import CPU_ONLY, CUDA_ONLY, check_runtime

    chosen = runtime or "torch"
    device = device or ("cuda" if chosen in CUDA_ONLY else None)
    check_runtime(chosen, device or "cpu")
    said = "" if quiet else f", runtime {chosen}{'' if runtime else ' (choose with --runtime)'}"
    own_device = choose_device("cpu" if chosen in CPU_ONLY else device, said)
    if is_remote(detector):
        return open_remote(detector, own_device).with_precision(precision).with_runtime(chosen, own_device)
    if precision == "float32":
        return Detector.from_folder(detector, own_device, chosen)
    return Detector.from_folder(detector, own_device).with_precision(precision).with_runtime(chosen, own_device)


def _open_file(file: str, device: str | None, runtime: str | None) -> "Detector | ExportedDetector":
    from xenomask.export import open_exported

    own = "onnxruntime" if file.endswith(".onnx") else "openvino"
    if runtime not in (None, own):
        raise XenomaskError(f"{file} runs in {own}, not in {runtime}: leave --runtime out, or name the detector folder")
    if device and not device.startswith("cpu"):
        raise XenomaskError(f"{file} runs in {own} on the CPU: leave --device {device} out, or name the folder")
    choose_device("cpu", f", runtime {own}, as {Path(file).name} is a file for it")
    return open_exported(Path(file))


def load_folder(
    detector: str, device: str | None, score: str | None = None, member: str | None = None, runtime: str | None = None,
    looks: str | None = None,
) -> "Detector":  # fmt: skip
    """`load_detector` where each member's queries are asked for, which a fused file has no more.

    Raises XenomaskError for such a file.
    """
    from xenomask.detector import Detector

    found = load_detector(detector, device, score, member, runtime, looks=looks)
    if not isinstance(found, Detector):
        raise XenomaskError(f"{detector} holds a detector in one graph: name its folder, or export with --queries")
    return found


def load_dataset(name: str, root: Path, split: str = "val", resize: str | None = None, coding: str | None = None):
    from xenomask.datasets import open_dataset

    return open_dataset(name, root, split=split, resize=parse_size(resize), coding=coding)


def write_json(path: Path | None, numbers: Any) -> None:
    """Writes numbers whole or not at all; numbers that do not exist (nan) become null."""
    from xenomask.files import make_dir, portable, write_numbers

    if path is not None:
        make_dir(path.parent)
        write_numbers(path, portable(numbers))


def print_profile(profile: "Profile") -> None:
    """The stages of a run, and which of them is the slowest."""
    table = Table(title="stages; seconds", title_justify="left")
    for name in ("stage", "items", "busy", "share", "first call", "waited for work", "waited for room"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for s in profile.stages:
        seconds = [f"{t:.2f}" for t in (s.first, s.waited, s.blocked)]
        table.add_row(s.name, str(s.items), f"{s.busy:.2f}", f"{100 * profile.share(s):.1f} %", *seconds)
    out_console.print(table)
    out_console.print(profile.verdict(), soft_wrap=True)


def print_numbers(title: str, numbers: dict[str, float]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("number")
    table.add_column("value", justify="right")
    for key, value in numbers.items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) else f"{value:.6f}")
    out_console.print(table)
