"""export: Detector -> one ONNX or OpenVINO file, and such a file -> something that detects."""

from importlib import import_module
from typing import TYPE_CHECKING

from xenomask.export.read import ExportedDetector as ExportedDetector
from xenomask.export.read import open_exported as open_exported

if TYPE_CHECKING:  # an exported file is read without torch
    from xenomask.export.quantize import quantize_detector as quantize_detector
    from xenomask.export.serving import write_serving as write_serving
    from xenomask.export.write import FORMATS as FORMATS
    from xenomask.export.write import export_detector as export_detector

_LATER = {
    "quantize_detector": "quantize", "FORMATS": "write", "export_detector": "write", "write_serving": "serving",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """What is imported when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'xenomask.export' has no attribute {name!r}")
    return getattr(import_module(f"xenomask.export.{_LATER[name]}"), name)
