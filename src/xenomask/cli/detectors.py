"""Detectors of the Hub: list, fetch, share."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from xenomask.cli.common import early, marked, out_console
from xenomask.detector.find import check_folder
from xenomask.errors import XenomaskError
from xenomask.offline import asking_hub

SHIPPED_ARE = {
    "nano": "two small Mask2Formers with their queries analysed: Maskomaly, ensembles",
    "nano-general": "the default: a small Mask2Former, and what looks ordinary to a frozen classifier",
}
app = typer.Typer()


@app.command(rich_help_panel="Share")
def detectors() -> None:
    """List the shipped and the known detectors, and which of them are on this machine. The Hub is not asked.

    Example: xenomask detectors
    """
    from xenomask.detector.folder import read_table
    from xenomask.detector.hub import on_machine
    from xenomask.detector.known import KNOWN

    def show(name: str, where: str, **facts: str) -> None:
        table = Table(name, where, show_header=False, box=None)
        for fact, text in facts.items():
            table.add_row(fact, text)
        out_console.print(marked("[bold]{}[/bold] ({})", name, where), highlight=False)
        out_console.print(table, highlight=False)

    shipped = Path(__file__).parents[1] / "detectors"
    for path in sorted(shipped.glob("*/detector.json")):
        what = SHIPPED_ARE[path.parent.name]
        scores = ", ".join(f"{m['name']}: {m['score']}" for m in read_table(path.parent)["members"])
        terms = "non-commercial (its model card lists the sources)"
        show(path.parent.name, "shipped", what=what, score=scores, terms=terms)
    for k in KNOWN.values():
        where = "on this machine" if on_machine(k) else "not on this machine"
        score = f"{k.score}: {k.why_score}"
        show(k.name, where, what=k.what, **{"from": f"hf:{k.repository}"}, score=score, terms=k.terms)
    out_console.print("use: xenomask detect PHOTO --detector NAME (a known one is downloaded then), or hf:org/name")


@app.command(rich_help_panel="Share")
def push(
    folder: Annotated[Path, typer.Argument(callback=early(check_folder), help="detector folder")],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Hub repository; made if need be")],
    numbers: Annotated[Path | None, typer.Option(help="of `xenomask evaluate --json`, for the model card")] = None,
    private: Annotated[bool, typer.Option(help="make the repository private")] = False,
) -> None:
    """Share a detector folder on the Hub: weights, JSON and its model card, which is written if it has none.

    Example: xenomask push my-detector me/my-detector --numbers at.json
    """
    from xenomask.detector.folder import CARD, describe_folder, write_card
    from xenomask.detector.hub import upload

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
    from xenomask.files import read_object

    try:
        return None if path is None else read_object(path)
    except XenomaskError as e:
        raise XenomaskError(f"{e}; give the numbers of `xenomask evaluate --json`") from e
