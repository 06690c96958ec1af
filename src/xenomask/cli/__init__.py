"""The command line: one command = one function of the same meaning, no logic of its own."""

import os
import sys
from typing import Annotated

import typer

from xenomask import __version__
from xenomask.cli import (
    benchmark,
    cluster,
    convert,
    data,
    evaluation,
    export,
    hub,
    photos,
    report,
    submission,
    thresholds,
    training,
)
from xenomask.cli.common import err_console, out_console
from xenomask.errors import XenomaskError

app = typer.Typer(no_args_is_help=True, add_completion=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
for part in (photos, evaluation, report, thresholds, benchmark, convert, export, training, data, hub):
    app.add_typer(part.app)
app.add_typer(submission.app, name="submission")
app.add_typer(cluster.app, name="slurm")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """Finds, per pixel, what a road scene's segmentation network was never taught.

    First steps: [bold]xenomask demo[/bold], then [bold]xenomask detect photo.jpg --out out[/bold].
    """
    if version:
        out_console.print(__version__)
        raise typer.Exit()


def main() -> None:
    """Runs the command line; what the user can mend becomes one line on stderr and exit code 2."""
    # the Hub is asked only on an explicit request, through hub.asking_hub, which says how
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app()
    except XenomaskError as e:
        err_console.print(f"error: {e}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as e:  # a disk that filled up or went away between two checks
        err_console.print(f"error: {e}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
