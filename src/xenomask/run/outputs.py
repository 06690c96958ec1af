"""What a network said of each frame, kept on disk: post-processing is tried again and again, the network runs once."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from xenomask.datasets import Dataset
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir
from xenomask.masks import MaskOutput, PixelOutput
from xenomask.run.common import MANIFEST, Tick, nothing, read_manifest

ENDING = ".safetensors"
SIZES = ("padded_size", "input_size", "image_size")


def write_output(path: Path, output: MaskOutput | PixelOutput) -> None:
    """Writes one network's output whole or not at all, in the numbers that the network gave."""
    names = ("class_map_logits",) if isinstance(output, PixelOutput) else ("class_logits", "mask_logits")
    tensors = {k: getattr(output, k).cpu().contiguous() for k in names}
    said = (*SIZES, "mirrored") if isinstance(output, PixelOutput) else (*SIZES, "outlier_class", "mirrored")
    sizes = {k: json.dumps(getattr(output, k)) for k in said}
    with atomic(path) as part:
        part.write_bytes(save(tensors, metadata=sizes))


def read_output(path: Path) -> MaskOutput | PixelOutput:
    """The inverse; raises XenomaskError for a damaged file."""
    try:
        data = path.read_bytes()  # safetensors opens no file whose name is not UTF-8
        found = load(data)
        length = int.from_bytes(data[:8], "little")
        said = {k: json.loads(v) for k, v in json.loads(data[8 : 8 + length]).get("__metadata__", {}).items()}
        sizes = {k: tuple(said[k]) for k in SIZES if k in said}
        outlier, mirrored = (said.get(k) is True for k in ("outlier_class", "mirrored"))
        if "class_map_logits" in found:
            return PixelOutput(found["class_map_logits"], **sizes, mirrored=mirrored)
        return MaskOutput(
            found["class_logits"], found["mask_logits"], **sizes, outlier_class=outlier, mirrored=mirrored
        )
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as e:
        raise XenomaskError(f"{path} is damaged: {e}; delete it and run again") from e


def cache_outputs(detector: Detector, data: Dataset, folder: Path, *, tick: Tick = nothing) -> None:
    """Writes folder/<member>/<frame>.safetensors for every frame that has none yet; goes on where it stopped.

    Raises XenomaskError where the folder holds the outputs of other networks or frames.
    """
    for member in detector.members:
        own = make_dir(folder / member.name)
        made_by = {"sha256": member.network.sha256, "dataset": data.name, "root": str(data.root.resolve())}
        if look := str(member.network.shown):
            made_by["look"] = look
        manifest = own / MANIFEST
        if manifest.is_file() and read_manifest(manifest) != made_by:
            raise XenomaskError(f"{own} holds outputs of another network or data set: choose another --cache")
        with atomic(manifest) as part:
            part.write_text(json.dumps(made_by, indent=1) + "\n")
        for frame in data.frames:
            path = own / f"{frame.id}{ENDING}"
            if not path.is_file():
                write_output(path, member.network.predict(data.sample(frame).image))
            tick()
