"""What a network said of each frame, kept on disk: post-processing is tried again and again, the network runs once."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from xenomask.datasets import Dataset
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir
from xenomask.masks import MaskOutput, PixelOutput
from xenomask.store import PHOTO
from xenomask.store.manifest import check_kept, claim, frame_digest, made_of
from xenomask.types import Tick, nothing

ENDING = ".safetensors"
SIZES = ("padded_size", "input_size", "image_size")


def write_output(path: Path, output: MaskOutput | PixelOutput, photo: str = "") -> None:
    """Writes one network's output whole or not at all, in the numbers that the network gave.

    `photo` is the SHA-256 of the photo's file.
    """
    names = ("class_map_logits",) if isinstance(output, PixelOutput) else ("class_logits", "mask_logits")
    tensors = {k: getattr(output, k).cpu().contiguous() for k in names}
    said = (*SIZES, "mirrored") if isinstance(output, PixelOutput) else (*SIZES, "outlier_class", "mirrored")
    sizes = {k: json.dumps(getattr(output, k)) for k in said} | {PHOTO: json.dumps(photo)}
    with atomic(path) as part:
        part.write_bytes(save(tensors, metadata=sizes))


def read_output(path: Path) -> MaskOutput | PixelOutput:
    """The inverse; raises XenomaskError for a damaged file."""
    try:
        found, said = load(path.read_bytes()), _metadata(path)  # safetensors opens no file whose name is not UTF-8
        sizes = {k: tuple(said[k]) for k in SIZES if k in said}
        outlier, mirrored = (said.get(k) is True for k in ("outlier_class", "mirrored"))
        if "class_map_logits" in found:
            return PixelOutput(found["class_map_logits"], **sizes, mirrored=mirrored)
        return MaskOutput(
            found["class_logits"], found["mask_logits"], **sizes, outlier_class=outlier, mirrored=mirrored
        )
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError,
            XenomaskError) as e:  # fmt: skip
        raise XenomaskError(f"{path} is damaged: {e}; delete it and run again") from e


def _metadata(path: Path) -> dict[str, Any]:
    """What the file's header says beside its tensors."""
    with path.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("its header is longer than it is")
        table = json.loads(f.read(length)).get("__metadata__", {})
    return {k: json.loads(v) for k, v in table.items()}


def output_photo(path: Path) -> str:
    """The SHA-256 of the photo that an output is of; raises XenomaskError for a damaged file."""
    try:
        return str(_metadata(path).get(PHOTO, ""))
    except (OSError, ValueError, TypeError, AttributeError, MemoryError, RecursionError) as e:
        raise XenomaskError(f"{path} is damaged: {e}; delete it and run again") from e


def cache_outputs(detector: Detector, data: Dataset, folder: Path, *, tick: Tick = nothing) -> None:
    """Writes folder/<member>/<frame>.safetensors for every frame that has none yet; resumes where it stopped.

    Raises XenomaskError where the folder holds the outputs of other networks, data sets, sizes or photos, and for a
    network whose name leads out of it.
    """
    for member in detector.members:
        # a file from elsewhere may call its network ../../x; one of the Hub is called org/name
        if not (folder / member.name).resolve().is_relative_to(folder.resolve()):
            raise XenomaskError(f"network {member.name!r} of {detector.name} has no name that a folder can have")
        own = make_dir(folder / member.name)
        n = member.network
        made_by = {"sha256": n.sha256, "settings": n.settings, "preprocess": asdict(n.preprocess), **made_of(data)}
        if look := str(member.network.view):
            made_by["look"] = look
        held = [p.name for p in own.glob(f"*{ENDING}") if p.name[0] != "."]
        claim(own, made_by, held, kind="outputs", of="another network or data set")
        paths = {f.id: own / f"{f.id}{ENDING}" for f in data.frames}
        check_kept(own, (f for f in data.frames if paths[f.id].is_file()), lambda f, p=paths: output_photo(p[f.id]))
        for frame in data.frames:
            if not paths[frame.id].is_file():
                output = member.network.predict(data.sample(frame).image)
                write_output(paths[frame.id], output, frame_digest(frame))
            tick()
