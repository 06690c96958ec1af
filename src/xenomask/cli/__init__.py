"""The command line: one command = one function of the same meaning, no logic of its own."""

import atexit
import gc
import io
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
import typer.core
from typer.main import get_command, get_command_name

from xenomask.cli import (
    benchmark,
    cluster,
    components,
    convert,
    datasets,
    detectors,
    doctor,
    evaluate,
    explain,
    export,
    ignore,
    predict,
    refine,
    report,
    serve,
    submission,
    thresholds,
    train,
    video,
    warmup,
    web_app,
)
from xenomask.cli.common import err_console, marked, out_console, print_error
from xenomask.errors import XenomaskError
from xenomask.version import __version__

PARTS = (
    predict, refine, video, explain, components, ignore, web_app, serve, evaluate, report, thresholds, benchmark,
    convert, export, train, datasets, detectors, doctor, warmup,
)  # fmt: skip


def _value_shown(param: typer.core.TyperOption | typer.core.TyperArgument, ctx: object) -> str:
    """What --help shows for a value: its choices, else PATH, NUMBER or TEXT; nothing for a flag or an argument."""
    choices, kind = param.type_descriptor.choices, param.bare_type()
    if choices:
        return "|".join(map(str, choices))
    if kind == "bool" or isinstance(param, typer.core.TyperArgument):
        return ""
    return "PATH" if "Path" in kind else "NUMBER" if "int" in kind or "float" in kind else "TEXT"


# NOTE: typer would show Python's types, <str> and <bool>, which say nothing to whoever reads the help
for kind in (typer.core.TyperOption, typer.core.TyperArgument):
    kind.display_type = _value_shown  # pyright: ignore[reportAttributeAccessIssue]


NEXT = """\
[bold]xenomask[/bold] finds what a road scene's segmentation network was never trained on.

  xenomask demo --out demo               synthetic scenes, maps, numbers, pictures
  xenomask detect photo.jpg --out out    a photo: its map, heatmap, overlay
  xenomask datasets                      data sets it knows, and their layouts
  xenomask doctor                        what this installation can do
  xenomask --help                        all commands; each has an example
  xenomask --install-completion          completion for this shell"""


def _root(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="say nothing on stderr but errors")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="show where an error comes from")] = False,
) -> None:
    """Finds, per pixel, what a road scene's segmentation network was never trained on.

    First steps: [bold]xenomask demo[/bold], then [bold]xenomask detect photo.jpg --out out[/bold].
    """
    err_console.quiet = quiet
    del verbose  # errors end up in main(), which looks for it itself
    if version:
        out_console.print(__version__)
        raise typer.Exit()


def _app(parts: Iterable[ModuleType]) -> typer.Typer:
    """The command line with the commands of these parts."""
    made = typer.Typer(add_completion=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
    made.callback(invoke_without_command=True)(_root)
    for part in parts:
        made.add_typer(part.app)
    return made


def _names(part: typer.Typer) -> list[str]:
    """The words that a part's commands and groups are called by."""
    commands = [c.name or get_command_name(c.callback.__name__) for c in part.registered_commands if c.callback]
    return [*commands, *(str(g.name) for g in part.registered_groups)]


app = _app(PARTS)
GROUPS = {"submission": (submission, "Share"), "slurm": (cluster, "Tools")}
for name, (group, panel) in GROUPS.items():
    app.add_typer(group.app, name=name, rich_help_panel=panel)
OWNER = {name: part for part in PARTS for name in _names(part.app)}


def _built(words: list[str]) -> Any:
    """The command line that these words need: of the part alone that has their command, as all take typer .1 s."""
    named = next((w for w in words if w == "--help" or not w.startswith("--")), "")
    return get_command(_app([OWNER[named]]) if named in OWNER else app)


def _explain(e: BaseException) -> None:
    """One line on stderr; before it the traceback with --verbose."""
    if "--verbose" in sys.argv[1:]:
        traceback.print_exception(e)
    print_error(e)
    sys.exit(2)


# what typer raises of words that fit no command or option; of its kinds only BadParameter has a public name
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # pyright: ignore[reportAssignmentType]


def _misused(e: Any) -> None:
    """One line for a usage error; nothing more where typer has printed a group's help in its place."""
    if said := " ".join(e.format_message().replace("Value error, ", "").split()):  # pydantic's two words
        where = e.ctx.command_path if e.ctx else f"xenomask {sys.argv[1]}"
        if (own := getattr(e, "option_name", None)) in ("--quiet", "--verbose"):
            _explain(XenomaskError(f"{own} stands before the command: xenomask {own} {' '.join(sys.argv[1:2])} ..."))
        _explain(XenomaskError(f"{said[0].lower()}{said[1:].rstrip('.')} (help: {where} --help)"))
    sys.exit(2)


OWN = ("--version", "--quiet", "--verbose", "--help", "--install-completion", "--show-completion")


def _misplaced(words: list[str]) -> None:
    """Raises XenomaskError for a photo where a command belongs, and for a command's option before it."""
    commands = {*OWNER, *GROUPS}
    first, later = words[0], [w for w in words[1:] if w in commands]
    if first not in commands and Path(first).is_file():
        raise XenomaskError(f"{first} is a file, no command: xenomask detect {first} --out out")
    if first.startswith("--") and first.split("=")[0] not in OWN and later:
        raise XenomaskError(f"{first} stands before the command: xenomask {later[0]} ... {first} ...")


STOPPED = 130  # as shells have it: 128 + SIGINT


def main() -> None:
    """Runs the command line; what the user can mend becomes one line on stderr and exit code 2."""
    # the Hub is asked only on an explicit request, through hub.asking_hub, which says how
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    atexit.register(gc.freeze)  # the process's last collections would walk all that was imported, a tenth of a second
    for stream in (sys.stdout, sys.stderr):  # a file's name need not be text that the terminal can show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not sys.argv[1:] and "_XENOMASK_COMPLETE" not in os.environ:  # a shell that completes gives no arguments
        out_console.print(marked(NEXT), highlight=False)
        return
    often = gc.get_threshold()
    gc.set_threshold(20_000, *often[1:])  # imports make objects that stay: looking through them took .05 s
    try:
        if sys.argv[1:]:
            _misplaced(sys.argv[1:])
        code = _built(sys.argv[1:])(prog_name="xenomask", standalone_mode=False)
        if code == STOPPED:  # typer's, of Ctrl-C inside a command
            raise KeyboardInterrupt
        sys.exit(code)
    except UsageError as e:
        _misused(e)
    except (XenomaskError, OSError) as e:  # OSError: a disk that filled up or went away between two checks
        _explain(e)
    except KeyboardInterrupt:
        err_console.print("stopped")
        sys.exit(STOPPED)
    finally:
        gc.set_threshold(*often)
