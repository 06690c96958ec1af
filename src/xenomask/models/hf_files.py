"""A Hugging Face folder's weights files, checked before transformers opens them."""

import codecs
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xenomask.errors import XenomaskError, first_line
from xenomask.files import read_object
from xenomask.models.convert.arrays import Refused
from xenomask.models.convert.checkpoint import bare_names, read_torch, state_dict
from xenomask.models.convert.torchfile import check_legacy, check_zip
from xenomask.models.presets import without_warnings
from xenomask.models.weights import read_header

SPARE = 512 * 2**20  # bytes that a network may have beyond its files, for parts that inference never reads


def check_files(folder: Path, kind: Any, config: Any) -> dict[str, str]:
    """Raises XenomaskError for files with lies in them, and for a config that asks for far more memory than they fill.

    `kind` is the network's class, built on the meta device to know its size. Gives transformers' key mapping that frees
    the files' names of a wrapper's (DDP's, torch.compile's, Lightning's); {} where there is none.
    """
    for index in sorted(folder.glob("*.index.json")):
        parts = read_object(index).get("weight_map")
        for name in set(map(str, parts.values())) if isinstance(parts, dict) else {"a table"}:
            if Path(name).name != name or not (folder / name).is_file():
                raise XenomaskError(f"{index} names {name[:80]!r} as a weights file, which is none inside the folder")
    weights = sorted(folder.glob("*.safetensors"))
    headers = [read_header(p) for p in weights]
    names = [name for header in headers for name in header]
    total = sum(sum(4 * e.size // e.dtype.itemsize for e in header.values()) for header in headers)
    for path in sorted(folder.glob("pytorch_model*.bin")):
        total += 2 * path.stat().st_size
        if weights:
            _check_bin(path)
        else:  # which checks it, too
            names += map(str, state_dict(read_torch(path), path))
    try:
        with torch.device("meta"), without_warnings():
            module: nn.Module = kind(config)
    except Exception as e:  # whatever transformers makes of numbers that fit no network
        raise XenomaskError(f"{folder / 'config.json'} describes no network that can be built: {first_line(e)}") from e
    wanted = sum(t.numel() * 4 for t in (*module.parameters(), *module.buffers()))
    if wanted > total + SPARE:
        raise XenomaskError(
            f"the config in {folder} describes a network of {wanted >> 20} MB, but its weights hold {total >> 20} MB"
        )
    # transformers 4 and 5 call inner parts otherwise, but not what stands at the top
    tops = {_top(name) for name in module.state_dict()}
    freed = bare_names(names, lambda name: _top(name) in tops, folder)
    return {f"^{re.escape(name)}$": bare for name, bare in freed.items() if name != bare}


def _top(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _check_bin(path: Path) -> None:
    try:
        with path.open("rb") as f:
            zipped = f.read(2) == b"PK"
        check_zip(path) if zipped else check_legacy(path)
    except XenomaskError:
        raise
    except Refused as e:
        raise XenomaskError(f"{path} is refused: {e}; nothing of it was run") from e
    except Exception as e:  # a damaged archive can make zipfile raise anything at all
        raise XenomaskError(f"{path} is damaged: {first_line(e)}") from e


@contextmanager
def without_marks(folder: Path) -> Iterator[Path]:
    """The folder, or one like it without the byte order marks of its text files, which transformers does not read."""
    marked = [p for p in (*folder.glob("*.json"), *folder.glob("merges.txt")) if p.is_file() and _is_marked(p)]
    if not marked:
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        for path in folder.iterdir():
            if path in marked:
                (Path(scratch) / path.name).write_bytes(path.read_bytes().removeprefix(codecs.BOM_UTF8))
            elif path.is_file():
                try:
                    (Path(scratch) / path.name).symlink_to(path.resolve())
                except OSError:  # Windows without the right to
                    shutil.copyfile(path, Path(scratch) / path.name)
        yield Path(scratch)


def _is_marked(path: Path) -> bool:
    with path.open("rb") as f:
        return f.read(3) == codecs.BOM_UTF8
