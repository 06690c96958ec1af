"""Which project a checkpoint is from, by its content, and the converter for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError, refuse_taken
from xenomask.models.convert.checkpoint import (
    PROJECTS,
    bare_names,
    find_checkpoint,
    is_safetensors,
    is_torch_file,
    of_a_project,
    read_content,
    state_dict,
)
from xenomask.models.convert.common import Converted


@dataclass(frozen=True)
class Format:
    """A project's checkpoints: what the names of its tensors begin with, and who reads them.

    `convert(path, config, content)` is given the path that the user named, the config file if one was, and what the
    checkpoint holds, or None for a pickle of arrays, which is not read to tell its format.
    """

    name: str
    prefix: str
    convert: Callable[[Path, Path | None, Any], Converted]


def _mmsegmentation(path: Path, config: Path | None, content: Any) -> Converted:
    from xenomask.models.convert.mmseg import convert_mmseg

    return convert_mmseg(path, config, content)


def _detectron2(path: Path, config: Path | None, content: Any) -> Converted:
    from xenomask.models.convert.detectron2 import convert_detectron2

    beside = path / "config.yaml"  # as detectron2 writes it into a run's folder
    config = config or (beside if beside.is_file() else None)
    return convert_detectron2(find_checkpoint(path), content=content, config=config)


FORMATS: dict[str, Format] = {}


def register(format: Format) -> Format:
    """Add a checkpoint format to `convert`; returns it. Raises XenomaskError for a name that is taken."""
    refuse_taken("checkpoint format", format.name, FORMATS)
    FORMATS[format.name] = format
    if format.prefix not in PROJECTS:
        PROJECTS.append(format.prefix)
    return format


MMSEGMENTATION = register(Format("mmsegmentation", "decode_head.", _mmsegmentation))
DETECTRON2 = register(Format("detectron2", "sem_seg_head.", _detectron2))


def recognise(path: Path) -> str:
    """The name of a checkpoint's format, "mmsegmentation" or "detectron2", by the names of its tensors.

    Raises XenomaskError for anything else.
    """
    return _recognised(find_checkpoint(path))[0].name


def _recognised(path: Path) -> tuple[Format, Any]:
    """The format, and what the file holds where it had to be read to tell."""
    if not is_torch_file(path) and not is_safetensors(path):
        with path.open("rb") as f:
            if f.read(1) == b"\x80":
                return DETECTRON2, None  # its .pkl files are plain pickles of arrays
        raise XenomaskError(
            f"{path} is neither a file of torch.save or safetensors nor a pickle, so it is no checkpoint to convert"
        )
    content = read_content(path)
    names = [*bare_names(map(str, state_dict(content, path)), of_a_project, path).values()]
    for format in FORMATS.values():
        if any(n.startswith(format.prefix) for n in names):
            return format, content
    shown = ", ".join(repr(n[:60]) for n in names[:3]) or "none"
    raise XenomaskError(
        f"{path} is of no project that xenomask converts (MMSegmentation: decode_head.*, detectron2: sem_seg_head.*); "
        f"its first names are {shown}"
    )


def convert(path: Path, config: Path | None = None) -> Converted:
    """Converts a Mask2Former of a known format; `config` is the run's `.py` (MMSegmentation) or `config.yaml`."""
    format, content = _recognised(find_checkpoint(path))
    return format.convert(path, config, content)
