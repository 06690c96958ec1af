"""The web page."""

from typing import Annotated

import typer

from xenomask.cli.common import DEFAULT_DETECTOR, DeviceOption, RuntimeOption, load_folder, out_console

app = typer.Typer()


@app.command("app", rich_help_panel="Predict")
def serve(
    detector: Annotated[list[str], typer.Option("--detector", help="detector folder, name or hf:org/name; may be "
                                                "given several times")] = [DEFAULT_DETECTOR],  # noqa: B006
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0: this network may use it")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="default: the first free one from 7860 on")] = None,
    allow_host: Annotated[list[str], typer.Option(metavar="NAME", help="a host name under which others reach it, as a "
                                                  "proxy's; may be given several times")] = [],  # noqa: B006
    device: DeviceOption = None,
    runtime: RuntimeOption = None,
) -> None:  # fmt: skip
    """A web page: drop a photo, see its map, move the threshold, click a pixel and see why. Ctrl-C ends it.

    Example: xenomask app --port 7860
    """
    from xenomask.app.page import serve

    found = {name: load_folder(name, device, runtime=runtime) for name in dict.fromkeys(detector)}
    serve(
        found,
        host,
        port,
        lambda address: out_console.print(f"open {address} (Ctrl-C ends)", soft_wrap=True),
        allow_host,
    )
