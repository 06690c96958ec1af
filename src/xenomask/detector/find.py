"""A detector's name -> where it lies. Nothing heavy is imported here: a mistyped name is refused at once."""

from pathlib import Path

from xenomask.detector import hub
from xenomask.detector.known import KNOWN
from xenomask.errors import XenomaskError, unknown

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
        raise XenomaskError(f"{folder} is no detector folder: it has no {FILE}; `xenomask assemble` makes one")
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
    if hub.is_remote(name):
        if name not in KNOWN:
            hub.parse(name)
    elif not is_exported(name):
        find(name)
    elif not Path(name).exists():
        raise XenomaskError(f"no such file: {name}")
