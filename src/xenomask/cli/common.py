"""What every command shares: option types, progress, tables, opening what the user named."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from xenomask import opening
from xenomask.cli.completion import DATASETS, DETECTORS, KERNELS, PRECISIONS, REFINEMENTS, RUNTIMES, SCORES, names
from xenomask.detector import find
from xenomask.errors import XenomaskError, printable, unknown
from xenomask.files import check_maps

if TYPE_CHECKING:
    from xenomask.detector.predictor import Predictor
    from xenomask.objects import IgnoreRegion
    from xenomask.predict.pipeline import Profile
    from xenomask.store import MapFolder


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


def early(check: Callable[[Any], Any]) -> Callable[..., Any]:
    """A callback that refuses a value, or each of several, before the command loads anything heavy."""

    def callback(ctx: Any, value: Any) -> Any:
        if value is not None and not ctx.resilient_parsing:  # a shell that completes is refused nothing
            for one in value if isinstance(value, list) else [value]:
                check(one)
        return value

    return callback


def one_of(what: str, known: Sequence[str], module: str = "", name: str = "") -> Callable[..., Any]:
    """The callback that refuses a word, or one of several with commas, that is not known.

    What was registered from outside lies in the dictionary `name` of `module`, where that is loaded.
    """

    def check(text: str) -> None:
        for word in (w.strip() for w in text.split(",")):
            if word not in known and word not in getattr(sys.modules.get(module), name, ()):
                raise unknown(what, word, known)

    return early(check)


def check_device(name: str) -> None:
    """Refuse what torch has no kind of device for, such as gpu."""
    if name.split(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
        raise XenomaskError(
            f"device {name[:60]} cannot be used: there is no such kind: it is cpu, or cuda (cuda:1, ...) for a GPU"
        )


def check_root(root: Path) -> None:
    """Refuse a data set's folder that is not there."""
    if not root.is_dir():
        raise XenomaskError(f"no such folder: {root}; --root is the folder of the data set")


def check_there(path: Path) -> None:
    """Refuse a file or folder that is not there."""
    if not path.exists():
        raise XenomaskError(f"no such file or folder: {path}")


def check_tta(text: str) -> None:
    """Refuse other words than views; `models.tta.parse_tta` does it again, and asks for more."""
    for word in (w.strip() for w in text.split(",")):
        if word != "mirror" and not word.isdecimal():
            raise unknown("view for --tta", word, ("mirror", "shortest edges in pixels, such as 288,384"))


OUTSIDE = ("xenomask.scores.definition", "SCORES")  # scores that were registered
a_detector = early(find.check_name)
a_data_set = one_of("data set", DATASETS, "xenomask.datasets.catalogue", "DATASETS")
maps_there = early(check_maps)

DEFAULT_DETECTOR = "nano-general"  # the best of the shipped ones by the number of docs/ablations.md
DetectorOption = Annotated[
    str,
    typer.Option("--detector", autocompletion=names(DETECTORS), callback=a_detector, help="detector folder, a name "
                 "that `xenomask detectors` lists, hf:org/name, or a file of `xenomask export`"),
]  # fmt: skip
DatasetOption = Annotated[
    str,
    typer.Option("--dataset", autocompletion=names(DATASETS), callback=a_data_set, help="a name that `xenomask "
                 "datasets` lists; folder is one of your own"),
]  # fmt: skip
RootOption = Annotated[Path, typer.Option("--root", callback=early(check_root), help="folder of the data set")]
SplitOption = Annotated[str, typer.Option("--split", help="split, where the data set's layout has them")]
ResizeOption = Annotated[str | None, typer.Option("--resize", help="WxH on loading, e.g. 512x256 for a squeezed copy")]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", callback=early(check_device), help="cpu, cuda, ...; default: cuda where there is one"),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", autocompletion=names(RUNTIMES), callback=one_of("runtime", RUNTIMES), help="torch, "
                 "compiled, openvino or onnxruntime; default: torch, or openvino where its graphs are kept"),
]  # fmt: skip
AutoRuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", autocompletion=names(("auto", *RUNTIMES)),
                 callback=one_of("runtime", ("auto", *RUNTIMES)), help="auto (openvino where its graphs are kept or "
                 "worth building, else torch), torch, compiled, openvino or onnxruntime"),
]  # fmt: skip
KernelOption = Annotated[
    str,
    typer.Option(
        "--kernel",
        autocompletion=names(KERNELS),
        callback=one_of("kernel", KERNELS),
        help="what computes scores from masks: auto, numba (CPU), numpy (max_logit of one photo), triton (GPU), torch",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option("--precision", autocompletion=names(PRECISIONS), callback=one_of("precision", PRECISIONS),
                 help="of the networks: float32, bfloat16, or on GPUs float16"),
]  # fmt: skip
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="photos of one size that networks see together")]
ProfileOption = Annotated[bool, typer.Option("--profile", help="print how long each stage was busy and waited")]


def check_json(path: Path | None) -> Path | None:
    """Raises XenomaskError where --json cannot be written, before the work is done for nothing."""
    from xenomask.files import make_dir, refuse_folder, refuse_input

    if path is not None:
        if str(path) == "-":
            raise XenomaskError("- is no file's name here: give one, such as numbers.json")
        refuse_folder(path)
        refuse_input(path)
        make_dir(path.parent)
    return path


def check_threshold(value: float | list[float] | None) -> float | list[float] | None:
    """Refuse NaN and infinity, which are above or below everything."""
    given = [] if value is None else value if isinstance(value, list) else [value]
    if any(not math.isfinite(v) for v in given):  # numpy is loaded to refuse it alone
        from xenomask.arrays import as_threshold

        for threshold in given:
            as_threshold(threshold)
    return value


ThresholdOption = Annotated[
    float | None,
    typer.Option("--threshold", callback=check_threshold, help="objects score more; default: the detector's"),
]
IgnoreOption = Annotated[
    str | None,
    typer.Option("--ignore", help="part of every photo that does not count, such as the own bonnet: bottom:12%, or a "
                 "mask picture; default: the detector's"),
]  # fmt: skip


def named_region(text: str | None) -> "IgnoreRegion | None":
    """The region that --ignore names; asked for before networks are read."""
    if text is None:
        return None
    from xenomask.objects.ignore import parse_region

    return parse_region(text)


def with_region(found: "Predictor", region: "IgnoreRegion | None") -> "Predictor":
    """The detector with that ignore region, or with its own where none is named."""
    from dataclasses import replace

    return found if region is None else replace(found, ignore=region)  # pyright: ignore


AlarmsOption = Annotated[
    Literal["low", "normal", "high"] | None,
    typer.Option("--alarms", help="instead of --threshold: few false objects and less found (low), or more of both"),
]


def refuse_both(threshold: float | None, alarms: str | None) -> None:
    """Raises XenomaskError where both are given; asked for before networks are read."""
    if threshold is not None and alarms is not None:
        raise XenomaskError("--alarms chooses a stored threshold: leave --threshold out")


def choose_threshold(found: "Predictor", threshold: float | None, alarms: str | None) -> tuple[float | None, str]:
    """The threshold that is asked for or stored, and what is known of its false alarms.

    Raises XenomaskError where none is stored for these alarms.
    """
    if threshold is not None:
        return threshold, ""
    stored = found.thresholds.get("default" if alarms in (None, "normal") else alarms)
    if stored is None and alarms is not None:
        raise XenomaskError(
            f"{found.name} holds no threshold for {alarms} alarms by score {found.score_name}: give one by --threshold"
        )
    if stored is None:
        return None, ""
    rate = stored.get("false_objects")
    return float(stored["value"]), "" if rate is None else f" ({expected(rate)})"


def expected(rate: float) -> str:
    """How many false objects are to be expected.

    >>> expected(0.467), expected(1.93)
    ('expect one false object in 2 ordinary photos', 'expect 1.9 false objects in an ordinary photo')
    """
    if not 0 < rate < 0.7:
        return f"expect {rate:.2g} false objects in an ordinary photo"
    return f"expect one false object in {1 / rate:.0f} ordinary photos"


PatternOption = Annotated[
    str | None,
    typer.Option("--pattern", help="names of other tools' map files, such as '{id}_score.npy': HDF5, .npy, .npz, PNG "
                 "or TIFF; default: {id}.hdf5"),
]  # fmt: skip
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="name of the array in HDF5 (default: value) and .npz (default: the only one)"),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", callback=check_json, help="also write the numbers to this file")
]
ScoreOption = Annotated[
    str | None,
    typer.Option(
        "--score",
        autocompletion=names(SCORES),
        callback=one_of("score", SCORES, *OUTSIDE),
        help="read the networks by this score instead",
    ),
]
TtaOption = Annotated[
    str | None,
    typer.Option("--tta", callback=early(check_tta), help="test-time augmentation: average the maps of the mirror "
                 "image too (mirror), of shortest edges in pixels (288,384), or of both (mirror,288,384: four views)"),
]  # fmt: skip


def check_refine(text: str) -> None:
    """Refuse an unknown refinement; `refine.parse_refinement` does it again, and asks for its options."""
    name, outside = text.partition(":")[0].strip(), sys.modules.get("xenomask.refine.definition")
    if name not in (*REFINEMENTS, "none", *getattr(outside, "REFINEMENTS", ())):
        raise unknown("refinement", name, (*REFINEMENTS, "none"))


RefineOption = Annotated[
    list[str] | None,
    typer.Option("--refine", autocompletion=names((*REFINEMENTS, "none")), callback=early(check_refine),
                 help=f"refine the fused map ({', '.join(REFINEMENTS)}; options: pooling:up=.3); again for more; none: "
                 "not even by the detector's own"),
]  # fmt: skip
MemberOption = Annotated[str | None, typer.Option("--member", help="use this member alone")]
CheckpointOption = Annotated[Path, typer.Option("--checkpoint", callback=early(check_there), help="checkpoint folder")]


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Any]:
    """A bar on stderr where that is a terminal; yields the function that moves it one on. None: no end is known."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # what is piped away is not the bar's to show
    shown, both = err_console.is_terminal, out_console.is_terminal
    with Progress(*columns, console=err_console, disable=not shown, redirect_stdout=both) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def beside_progress() -> Console:
    """Where results are printed while a bar is shown: on one terminal only the bar's own console keeps them apart."""
    shown = err_console.is_terminal and not err_console.quiet
    return err_console if shown and out_console.is_terminal else out_console


def parse_size(text: str | None) -> tuple[int, int] | None:
    """'512x256' -> (256, 512)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p[:9]) > 0 for p in parts):
        raise XenomaskError(f"size {text!r} is not WIDTHxHEIGHT, such as 512x256")
    from xenomask.picture_files import MAX_PIXELS, MAX_SIDE

    width, height = (int(p[:9]) for p in parts)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise XenomaskError(f"size {text}: a photo has {MAX_SIDE} pixels a side and {MAX_PIXELS} in all at most")
    return height, width


def parse_point(text: str) -> tuple[int, int]:
    """'512,256' -> (512, 256); raises XenomaskError for anything but two whole numbers.

    >>> parse_point("512, 256")
    (512, 256)
    """
    parts = [p.strip() for p in text.split(",")]
    if len(parts) != 2 or not all(p.isascii() and p.isdecimal() and len(p) < 10 for p in parts):
        raise XenomaskError(f"point {text!r} is not X,Y in whole pixels from the top left, such as 512,256")
    return int(parts[0]), int(parts[1])


def parse_shard(text: str) -> tuple[int, int]:
    """'2/8' -> (2, 8)."""
    parts = text.split("/")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts):
        raise XenomaskError(f"shard {text!r} is not I/N, such as 2/8 for the second of eight")
    return int(parts[0]), int(parts[1])


def print_error(e: BaseException) -> None:
    """One line on stderr, whatever --quiet says."""
    err_console.quiet = False
    err_console.print(f"error: {printable(str(e))}", style="red", highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Print what was chosen for the user, dimmed, or a note, on stderr."""
    err_console.print(line, style="yellow" if line.startswith("note:") else "dim", soft_wrap=True)


# What is opened and chosen for the user is said on stderr.
choose_device = partial(opening.choose_device, say=say)
load_detector = partial(opening.open_detector, say=say)
load_folder = partial(opening.open_masks, say=say)
with_refine = partial(opening.with_refine, say=say)


def load_dataset(name: str, root: Path, split: str = "val", resize: str | None = None, coding: str | None = None):
    from xenomask.datasets import open_dataset

    return open_dataset(name, root, split=split, resize=parse_size(resize), coding=coding)


def map_folders(folders: Sequence[Path], pattern: str | None, key: str | None) -> "list[MapFolder]":
    """Describe folders of maps; one note on stderr says what is not checked of those that other tools wrote."""
    from xenomask.store.manifest import MANIFEST, folder_by

    found = [folder_by(m, pattern, key) for m in folders]
    if (pattern or key) and any(not (m.path / MANIFEST).is_file() for m in found):
        say("note: maps of other tools have no manifest: which photos they were made from is not checked")
    return found


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
