"""Which project a checkpoint is from, by its content, and the converter for it."""

from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError
from xenomask.models.convert.checkpoint import (
    bare_names,
    find_checkpoint,
    is_safetensors,
    is_torch_file,
    of_a_project,
    read_content,
    state_dict,
)
from xenomask.models.convert.common import Converted


def recognise(path: Path) -> str:
    """ "mmsegmentation" or "detectron2", by the names of the tensors; XenomaskError for anything else."""
    return _recognised(find_checkpoint(path))[0]


def _recognised(path: Path) -> tuple[str, Any]:
    """The project, and what the file holds where it had to be read to tell."""
    if not is_torch_file(path) and not is_safetensors(path):
        with path.open("rb") as f:
            if f.read(1) == b"\x80":
                return "detectron2", None  # its .pkl files are plain pickles of arrays
        raise XenomaskError(
            f"{path} is neither a file of torch.save or safetensors nor a pickle, so it is no checkpoint to convert"
        )
    content = read_content(path)
    names = [*bare_names(map(str, state_dict(content, path)), of_a_project, path).values()]
    for prefix, project in (("decode_head.", "mmsegmentation"), ("sem_seg_head.", "detectron2")):
        if any(n.startswith(prefix) for n in names):
            return project, content
    shown = ", ".join(repr(n[:60]) for n in names[:3]) or "none"
    raise XenomaskError(
        f"{path} is of no project that xenomask converts (MMSegmentation: decode_head.*, detectron2: sem_seg_head.*); "
        f"its first names are {shown}"
    )


def convert(path: Path, config: Path | None = None) -> Converted:
    """Converts a Mask2Former of MMSegmentation or detectron2; `config` is the run's `.py` or `config.yaml`."""
    project, content = _recognised(find_checkpoint(path))
    if project == "mmsegmentation":
        from xenomask.models.convert.mmseg import convert_mmseg

        return convert_mmseg(path, config, content)
    from xenomask.models.convert.detectron2 import convert_detectron2

    beside = path / "config.yaml"  # as detectron2 writes it into a run's folder
    return convert_detectron2(
        find_checkpoint(path), content=content, config=config or (beside if beside.is_file() else None)
    )
