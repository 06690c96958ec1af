"""detectron2's `config.yaml` as plain dicts; what a tag would have computed is left unread, never run."""

from pathlib import Path
from typing import Any

import yaml

from xenomask.errors import XenomaskError
from xenomask.files import read_text
from xenomask.models.convert.pyconfig import MAX_BASES, MAX_BYTES, Unread, config_root, each_entry, merge

BASE = "_BASE_"


class _Loader(yaml.SafeLoader):
    """Reads plain YAML; any tag of Python's becomes an Unread."""


def _unread(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Unread:
    return Unread(f"config {node.start_mark.name}, line {node.start_mark.line + 1}")


_Loader.add_multi_constructor("", _unread)


def read_yaml(path: Path) -> dict[str, Any]:
    """The file's entries, its bases merged in as detectron2 does.

    A base must lie inside the nearest folder named `configs` above the file, or else in the file's own. Raises
    XenomaskError that names the file for whatever is no plain mapping.
    """
    path = path.resolve()
    return _read(path, config_root(path).resolve(), ())


def _read(path: Path, root: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path in above or len(above) >= MAX_BASES:
        raise XenomaskError(f"config {path} inherits from itself, or through more than {MAX_BASES} files")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise XenomaskError(f"config {path} is larger than {MAX_BYTES // 1024} KB")
        stream = read_text(path)
        loader = _Loader(stream)
        loader.name = str(path)
        found = loader.get_single_data()
    except OSError as e:
        raise XenomaskError(f"config {path} cannot be read: {e.strerror or e}") from e
    # PyYAML's own for a tag whose text does not fit: IndexError of !!int "", KeyError of !!bool perhaps
    except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError, OverflowError, AttributeError) as e:
        raise XenomaskError(f"config {path} is no plain YAML: {' '.join(str(e).split())[:200]}") from e
    if not isinstance(found, dict):
        raise XenomaskError(f"config {path} is no YAML of named entries, as detectron2's config.yaml is")
    for value in each_entry(found, str(path)):
        if isinstance(value, dict) and not all(isinstance(k, str) for k in value):
            raise XenomaskError(f"config {path} has an entry whose name is no text")
    base = found.pop(BASE, None)
    if base is None:
        return found
    if not isinstance(base, str) or "://" in base:
        raise XenomaskError(f"config {path} has the base {str(base)[:80]!r}, which is no file beside it")
    other = (path.parent / base).resolve()
    if not other.is_relative_to(root):
        raise XenomaskError(f"config {path} has the base {base[:80]}, which lies outside {root}")
    return merge(found, _read(other, root, (*above, path)), str(path))
