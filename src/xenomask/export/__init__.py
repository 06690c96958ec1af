"""export: Detector -> one ONNX or OpenVINO file, and such a file -> something that detects."""

from xenomask.export.quantize import quantize_detector as quantize_detector
from xenomask.export.read import ExportedDetector as ExportedDetector
from xenomask.export.read import open_exported as open_exported
from xenomask.export.serving import write_serving as write_serving
from xenomask.export.write import FORMATS as FORMATS
from xenomask.export.write import export_detector as export_detector
