"""What this installation can do."""

from dataclasses import asdict

import typer
from rich.table import Column, Table

from xenomask.cli.common import JsonOption, marked, out_console, write_json

app = typer.Typer()

STYLES = {"ok": "[green]ok[/green]", "off": "[dim]off[/dim]", "wrong": "[red]wrong[/red]"}


@app.command(rich_help_panel="Tools")
def doctor(json_file: JsonOption = None) -> None:
    """Check the installation: devices, compiled paths, runtimes, extras, detectors. Nothing is downloaded.

    Exit code 1 where something is wrong; what is optional and missing is only off.

    Example: xenomask doctor
    """
    from xenomask.cli.doctor_checks import examine, healthy, verdict
    from xenomask.offline import USER_OFFLINE

    findings = examine(USER_OFFLINE)
    table = Table("", "", Column(overflow="fold"), show_header=False, box=None)  # paths may be long
    for f in findings:
        table.add_row(f.what, marked(STYLES[f.state]), f.text)
    out_console.print(table)
    out_console.print(verdict(findings), highlight=False, soft_wrap=True)
    write_json(json_file, [asdict(f) for f in findings])
    if not healthy(findings):
        raise typer.Exit(1)
