"""Detectors of the Hub: list, fetch, share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from xenomask.cli.common import err_console, out_console
from xenomask.errors import XenomaskError

SHIPPED_ARE = {
    "nano": "two small Mask2Formers; for trying everything with",
    "nano-general": "one of them, trained on more objects and countries: fewer false alarms",
}
app = typer.Typer()

# Whether the user keeps the Hub away, read before main() makes that everybody's default.
USER_OFFLINE = (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in (
    "1", "ON", "YES", "TRUE",
)  # fmt: skip


@contextmanager
def asking_hub() -> Iterator[None]:
    """Lets the Hub be asked while it is open, unless the user's own HF_HUB_OFFLINE=1 forbids it."""
    # main() sets HF_HUB_OFFLINE=1 so that no library asks the network on its own. huggingface_hub reads the variable
    # once, when it is imported, into this constant, which it then asks before every request; it has no switch for a
    # single call. So the constant is turned for the length of an explicit request and turned back: what loads networks
    # afterwards is offline again. A Python user of the library has no such default, and nothing is turned for them.
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    if not err_console.is_terminal:  # as everywhere: bars are for people
        disable_progress_bars()
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = USER_OFFLINE
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def open_remote(name: str, device: str):
    """The detector of a known name or hf:org/name; downloads show their progress on stderr."""
    from xenomask.detector import from_fetched
    from xenomask.hub import fetch

    with asking_hub():
        found = fetch(name)
    return from_fetched(found, device)


@app.command()
def detectors() -> None:
    """List the shipped and the known detectors, and which of them are on this machine. The Hub is not asked.

    Example: xenomask detectors
    """
    from xenomask.detector_folder import read_table
    from xenomask.hub import on_machine
    from xenomask.known import KNOWN

    table = Table(Column("detector", no_wrap=True), "what it is", "score", "here", "terms", show_lines=True)
    shipped = Path(__file__).parents[1] / "detectors"
    for path in sorted(shipped.glob("*/detector.json")):
        what = SHIPPED_ARE[path.parent.name]
        scores = "\n".join(f"{m['name']}: {m['score']}" for m in read_table(path.parent)["members"])
        table.add_row(path.parent.name, what, scores, "shipped", "non-commercial (its model card lists the sources)")
    for k in KNOWN.values():
        here = on_machine(k)
        what = f"{k.what}\nhf:{k.repository}"
        table.add_row(k.name, what, f"{k.score}: {k.why_score}", "yes" if here else "no", k.terms)
    out_console.print(table)
    out_console.print("use: xenomask detect PHOTO --detector NAME (a known one is downloaded then), or hf:org/name")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="detector folder")],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Hub repository; made if need be")],
    numbers: Annotated[Path | None, typer.Option(help="of `xenomask evaluate --json`, for the model card")] = None,
    private: Annotated[bool, typer.Option(help="make the repository private")] = False,
) -> None:
    """Share a detector folder on the Hub: weights, JSON and its model card, which is written if it has none.

    Example: xenomask push my-detector me/my-detector --numbers at.json
    """
    from xenomask.detector_folder import CARD, describe_folder, write_card
    from xenomask.hub import upload

    describe_folder(folder)  # damaged ones are not shared
    if not (folder / CARD).is_file():
        write_card(folder, _read_numbers(numbers))
        out_console.print(f"model card in {folder / CARD}: read it, your name is on it")
    elif numbers is not None:
        raise XenomaskError(f"{folder / CARD} is there already and would not show {numbers}: remove one of the two")
    with asking_hub():
        address = upload(folder, repository, private=private)
    out_console.print(f"shared as {address}; use: xenomask detect PHOTO --detector hf:{repository}", soft_wrap=True)


def _read_numbers(path: Path | None) -> dict | None:
    import json

    from xenomask.files import read_text

    if path is None:
        return None
    try:
        return dict(json.loads(read_text(path)))
    except (OSError, ValueError, TypeError) as e:
        raise XenomaskError(f"{path} cannot be read as the numbers of `xenomask evaluate --json`: {e}") from e
