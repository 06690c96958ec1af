"""OpenVINO graphs kept on disk: what takes half a minute to translate is read in a moment at the next start.

They lie in the user's cache folder, or in the folder that XENOMASK_CACHE names; XENOMASK_CACHE=off keeps none. Nothing
is lost where the folder is deleted.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenomask.deflate import deflate
from xenomask.errors import XenomaskError, first_line
from xenomask.files import atomic, make_dir, platform_cache, read_object, read_text, sha256
from xenomask.jit import thread_count
from xenomask.models.config import CONFIG
from xenomask.models.runtimes.sessions import (
    Session,
    compile_openvino,
    compiled_session,
    import_openvino,
    need,
    read_openvino,
    read_tensor,
)
from xenomask.version import __version__

if TYPE_CHECKING:
    from xenomask.models.network import Network

log = logging.getLogger(__name__)

VARIABLE = "XENOMASK_CACHE"
LIMIT = 4 * 2**30  # bytes of all graphs; the one used longest ago goes first
GRAPH, WEIGHTS, FACTS = "graph.xml", "graph.bin", "facts.json"
# what may translate the same network to another graph
MAKERS = ("openvino", "torch", "transformers", "timm")
FORM = 2  # one more where the same network is translated to another graph


def cache_folder() -> Path | None:
    """Where graphs are kept; None where none shall be, or the user has no folder."""
    named = os.environ.get(VARIABLE, "")
    if named.lower() in ("off", "0"):
        return None
    if named:
        return Path(named) / "openvino"
    try:
        return platform_cache() / "openvino"
    except RuntimeError:  # no home
        return None


def graph_key(network: "Network", shape: tuple[int, ...]) -> str:
    """The name of the graph of a network for batches of that shape.

    It is a hash of the numbers in the module, not of the file that they came from: they may have been changed since.
    """
    import torch

    config: dict[str, Any] = {k: v for k, v in network.config.to_dict().items() if k != "_name_or_path"}
    digest = hashlib.sha256(_made(shape=shape, module=type(network.module).__name__, config=config))
    for name, t in [*network.module.named_parameters(), *network.module.named_buffers()]:
        digest.update(f"{name} {tuple(t.shape)} {t.dtype}".encode())
        digest.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


_version = cache(metadata.version)  # reading one takes 2 ms


def _made(**what: Any) -> bytes:
    """What a graph is made of, and by which versions, as text."""
    said = {"xenomask": __version__, "form": FORM, **{p: _version(p) for p in MAKERS}, **what}
    return json.dumps(said, sort_keys=True, default=str).encode()


def _notes(checkpoint: Path, weights: str) -> Path | None:
    """The folder of notes on a checkpoint folder's graphs, one a shape; `weights` is the SHA-256 of their file."""
    folder = cache_folder()
    if folder is None or not (checkpoint / CONFIG).is_file():
        return None
    try:
        made = _made(weights=weights, config=sha256(checkpoint / CONFIG))
    except metadata.PackageNotFoundError:  # without OpenVINO there is no graph that could run
        return None
    return folder.parent / "checkpoints" / hashlib.sha256(made).hexdigest()


def _name(shape: tuple[int, ...]) -> str:
    return f"{'x'.join(map(str, shape))}.json"


def note_graph(checkpoint: Path, weights: str, shape: tuple[int, ...], key: str, settings: str) -> None:
    """Notes a kept graph as that of a checkpoint folder's files, so that it is found again without torch."""
    folder = _notes(checkpoint, weights)
    if folder is None:
        return
    path = folder / _name(shape)
    check = _check(path, key, settings)
    try:
        make_dir(path.parent)
        with atomic(path) as part:
            part.write_text(json.dumps({"graph": key, "settings": settings, "check": check}) + "\n")
    except (XenomaskError, OSError) as e:
        log.warning("the graph is kept, but not found without torch (%s=off silences this): %s", VARIABLE, e)


def noted(checkpoint: Path, weights: str, shape: tuple[int, ...] | None = None) -> tuple[str, str] | None:
    """The key of the kept graph of a checkpoint folder's network, and the network's `settings`; None without one.

    `shape` is that of a batch; None: the first graph of any.
    """
    folder = _notes(checkpoint, weights)
    for path in [] if folder is None else sorted(folder.glob("*.json" if shape is None else _name(shape))):
        try:
            table = read_object(path)
        except XenomaskError:  # cut short, say: the graph is looked for by its network then, and noted anew
            continue
        key, settings = (str(table.get(k, "")) for k in ("graph", "settings"))
        if table.get("check") == _check(path, key, settings) and is_kept(key):
            return key, settings
    return None


def _check(path: Path, key: str, settings: str) -> str:
    """What tells a note that was damaged, or is another's."""
    return hashlib.sha256(f"{path.parent.name} {path.stem} {key} {settings}".encode()).hexdigest()


def is_kept(key: str) -> bool:
    """Whether the graph of that name is there."""
    folder = cache_folder()
    return folder is not None and (folder / key / FACTS).is_file()


def kept_bytes(key: str) -> int:
    """What the graph of that name, and what was compiled of it, takes on disk."""
    return sum(p.stat().st_size for p in ((cache_folder() or Path()) / key).glob("*"))


def read_graph(key: str) -> Any:
    """The kept openvino.Model, or None; a damaged one is removed, which is told."""
    if not is_kept(key):
        return None
    entry = (cache_folder() or Path()) / key
    try:
        facts = read_object(entry / FACTS)
        model, text, weights = read_openvino(entry / GRAPH, entry / WEIGHTS)
        if [hashlib.sha256(text).hexdigest(), weights] != [facts.get(GRAPH), facts.get(WEIGHTS)]:
            raise XenomaskError("its files are not those that were written")
        os.utime(entry)
        return model
    except (XenomaskError, OSError, RuntimeError, ValueError) as e:  # openvino raises RuntimeErrors
        log.warning("the kept graph %s is damaged and built anew: %s", entry, first_line(e))
        shutil.rmtree(entry, ignore_errors=True)
        return None


def open_graph(key: str) -> Session | None:
    """The kept graph of that name ready to run, or None; what OpenVINO compiles of it is kept for this processor.

    Compiling is half of a first photo's CPU time. The file's name holds its CRC-32: OpenVINO runs damaged ones. SHA-256
    took .04 s at each start, and who could write another file there could name it, too.
    """
    if not is_kept(key):
        return None
    entry, own = (cache_folder() or Path()) / key, _processor()
    for path in entry.glob(f"{own}-*.compiled"):
        try:
            tensor = read_tensor(path)
            if path.stem != f"{own}-{_sum(tensor.data)}":
                raise XenomaskError("it is not the file that was written")
            os.utime(entry)
            return compiled_session(import_openvino(tensor))
        except (XenomaskError, OSError, RuntimeError, ValueError) as e:
            log.warning("the compiled graph %s is damaged and compiled anew: %s", path, first_line(e))
            path.unlink(missing_ok=True)
    model = read_graph(key)
    if model is None:
        return None
    compiled = compile_openvino(model)
    try:
        data = compiled.export_model().getvalue()
        with atomic(entry / f"{own}-{_sum(data)}.compiled") as part:
            part.write_bytes(data)
    except (XenomaskError, OSError, RuntimeError) as e:
        log.warning("the compiled graph is not kept for the next start: %s", first_line(e))
    return compiled_session(compiled)


def _sum(data: Any) -> str:
    return f"{deflate.crc32(data):08x}"


@cache
def _processor() -> str:
    """A hash of what OpenVINO compiles for: the processor with its instructions, and how many may be used."""
    core = need("openvino", "openvino").Core()
    said = [str(core.get_property("CPU", name)) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    cpus = Path("/proc/cpuinfo")  # the name of a virtual machine's processor says little
    flags = [line for line in read_text(cpus).splitlines() if line.startswith("flags")][:1] if cpus.is_file() else []
    return hashlib.sha256("\n".join([*said, *flags, str(thread_count())]).encode()).hexdigest()[:16]


def keep_graph(key: str, model: Any) -> Any:
    """Writes an openvino.Model, whole or not at all, removes the oldest ones beyond LIMIT, and returns it read back.

    A graph as it was built computes a little differently from the same one read from disk, so that maps would depend
    on whether it was kept before: only graphs that were on disk are run. Where it cannot be kept, a warning says so.
    """
    folder = cache_folder()
    if folder is None:
        return _through_disk(model)
    try:
        make_dir(folder)
        with atomic(folder / key) as part:
            part.mkdir()
            _write(model, part)
            facts = {name: sha256(part / name) for name in (GRAPH, WEIGHTS)}
            (part / FACTS).write_text(json.dumps(facts) + "\n")
        _shrink(folder)
    except (XenomaskError, OSError, RuntimeError) as e:
        log.warning("the graph is not kept for the next start (%s=off silences this): %s", VARIABLE, e)
    kept = read_graph(key)
    return _through_disk(model) if kept is None else kept


def _write(model: Any, folder: Path) -> None:
    need("openvino", "openvino").serialize(model, str(folder / GRAPH), str(folder / WEIGHTS))


def _through_disk(model: Any) -> Any:
    """The model written to a temporary folder and read back; XenomaskError where there is no room for that."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _write(model, Path(scratch))
            return read_openvino(Path(scratch) / GRAPH, Path(scratch) / WEIGHTS)[0]
    except (OSError, RuntimeError) as e:
        raise XenomaskError(
            f"openvino's graph cannot be written and read back in {tempfile.gettempdir()}: {first_line(e)}; free some "
            "space, or name another folder by TMPDIR"
        ) from e


def _shrink(folder: Path) -> None:
    graphs = (p for p in folder.iterdir() if p.name[0] != "." and (p / FACTS).is_file())
    entries = sorted(graphs, key=lambda p: p.stat().st_mtime)
    sizes = [sum(f.stat().st_size for f in p.iterdir()) for p in entries]
    # what another process is writing, or another machine left, takes room too
    total = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    for entry, size in zip(entries[:-1], sizes, strict=False):  # the newest stays, however large
        if total <= LIMIT:
            break
        shutil.rmtree(entry, ignore_errors=True)
        total -= size
