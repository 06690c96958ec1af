"""A detector's name -> where it lies. Nothing heavy is imported here: a mistyped name is refused at once."""

from pathlib import Path

from xenomask.detector import hub
from xenomask.detector.known import KNOWN
from xenomask.errors import XenomaskError, unknown
from xenomask.files import read_object

FILE = "detector.json"
SHIPPED = Path(__file__).parents[1] / "detectors"
EXPORTED = (".onnx", ".xml")
QUANTIZED = "quantized.json"  # of a folder of several networks' files


def find(folder: str | Path) -> Path:
    """The folder of a detector: a path, or the name of a shipped one."""
    for path in (Path(folder), SHIPPED / str(folder)):
        if (path / FILE).is_file():
            return path
    shipped = sorted(p.name for p in SHIPPED.glob("*") if (p / FILE).is_file())
    if Path(folder).is_dir():
        check_folder(Path(folder))
    if str(folder) in KNOWN or str(folder).startswith(hub.PREFIX):
        raise XenomaskError(f"{folder} is on the Hub, not a folder: `xenomask detect` and Detector.from_hub fetch it")
    raise unknown("detector", str(folder), [*shipped, *KNOWN])


def is_exported(name: str | Path) -> bool:
    """Whether a detector's name is that of an exported file, or of a folder of `xenomask quantize`."""
    return Path(name).suffix in EXPORTED or (Path(name) / QUANTIZED).is_file()


def check_name(name: str) -> None:
    """Raises XenomaskError for a name that no detector, exported file or repository of the Hub can have.

    >>> check_name("nano")
    >>> check_name("nanoo")
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: unknown detector 'nanoo'; did you mean 'nano'? known: eomt-l, ...
    """
    if not name:
        raise XenomaskError("the detector's name is empty: is a variable of the shell not set?")
    if hub.is_remote(name):
        if name not in KNOWN:
            hub.parse(name)
    elif not is_exported(name):
        find(name)
    elif not Path(name).exists():
        raise XenomaskError(f"no such file: {name}")


def check_member(name: str, member: str) -> None:
    """Raises XenomaskError where a detector folder that lies here has no member of that name."""
    if hub.is_remote(name) or is_exported(name):
        return
    rows = read_object(find(name) / FILE).get("members")
    names = [r["name"] for r in rows if isinstance(r, dict) and "name" in r] if isinstance(rows, list) else []
    if names and member not in names:  # without any it is damaged, which is said where all of it is read
        raise unknown(f"member of detector {name}", member, names)


def check_folder(folder: Path) -> None:
    """Raises XenomaskError for what is no detector folder."""
    if not (folder / FILE).is_file():
        raise XenomaskError(f"{folder} is no detector folder: it has no {FILE}; `xenomask assemble --member` makes one")
