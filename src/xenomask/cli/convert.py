"""Other projects' checkpoints -> checkpoint folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xenomask.cli.common import check_there, early, out_console
from xenomask.errors import XenomaskError

if TYPE_CHECKING:
    from xenomask.models.convert.common import Converted

app = typer.Typer()


@app.command(rich_help_panel="Train")
def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            callback=early(check_there), help="MMSegmentation's .pth or work_dirs/<config>; detectron2's .pkl"
        ),
    ],  # fmt: skip
    out: Annotated[Path, typer.Option(help="checkpoint folder to write")],
    config: Annotated[
        Path | None,
        typer.Option(help="MMSegmentation's .py config, where the checkpoint holds none; detectron2's config.yaml"),
    ] = None,
) -> None:
    """Convert a Mask2Former of MMSegmentation or detectron2; the files are read as data, nothing in them is run.

    Example: xenomask convert work_dirs/mask2former_swin-s_8xb2-90k_cityscapes-512x1024 --out checkpoints/swin-s
    """
    from xenomask.files import make_dir
    from xenomask.models.convert.recognise import convert as run_convert

    if out.exists() and not (out / "xenomask.json").is_file():  # writing replaces the whole folder
        raise XenomaskError(f"{out} exists and is no checkpoint folder of xenomask; choose another --out")
    make_dir(out.parent)
    converted = run_convert(checkpoint, config)
    converted.network.save(out)
    for line in _summary(converted):
        out_console.print(line, highlight=False, soft_wrap=True)
    out_console.print(
        f"written: {out}; next: xenomask queries inlier --checkpoint {out} ..., then xenomask assemble", soft_wrap=True
    )


def _summary(converted: "Converted") -> list[str]:
    """What was recognised, line by line."""
    network = converted.network
    facts: Mapping[str, Any] = network.facts.get("converted", {})
    config: Any = network.config
    p = network.preprocess
    window = getattr(config.backbone_config, "window_size", None)
    backbone = facts.get("backbone") or config.backbone_config.model_type
    lines = [
        f"recognised: {facts.get('kind')}, Mask2Former with {backbone}" + (f" (window {window})" if window else ""),
        f"queries {config.num_queries}, classes {config.num_labels}, decoder layers {config.decoder_layers - 1}",
        f"photos: {p.policy} {p.size} x {p.longest}, padded to multiples of {p.divisor}",
    ]
    if "config" in facts:
        lines.append(
            f"config: {facts['config']}" + (f"; layout of names: {facts['layout']}" if "layout" in facts else "")
        )
    if facts.get("iterations") is not None:
        lines.append(f"iterations: {facts['iterations']}")
    if facts.get("miou") is not None:
        lines.append(f"mIoU {facts['miou']} at iteration {facts['miou_at']}, as the run's log says")
    used = facts["tensors"] - len(converted.dropped) if "tensors" in facts else None
    lines.append(f"tensors: {f'{used} used, ' if used is not None else ''}{len(converted.dropped)} left out")
    reasons = dict.fromkeys(converted.dropped.values())
    for reason in reasons:
        names = [n for n, r in converted.dropped.items() if r == reason]
        lines.append(f"  {len(names)} x {reason}: {names[0]}{', ...' if len(names) > 1 else ''}")
    return lines
