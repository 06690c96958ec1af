"""export: Detector -> one ONNX or OpenVINO file, and such a file -> something that detects."""

from typing import TYPE_CHECKING

from xenomask.export.content import FORMATS as FORMATS
from xenomask.export.read import ExportedDetector as ExportedDetector
from xenomask.export.read import open_exported as open_exported
from xenomask.later import later

if TYPE_CHECKING:  # an exported file is read without torch
    from xenomask.export.quantize import quantize_detector as quantize_detector
    from xenomask.export.serving import write_serving as write_serving
    from xenomask.export.write import export_detector as export_detector
    from xenomask.export.write import not_in_file as not_in_file

__getattr__, __dir__ = later(__name__, {
    "quantize_detector": "quantize", "export_detector": "write", "not_in_file": "write", "write_serving": "serving",
})  # fmt: skip
