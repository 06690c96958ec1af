"""models.runtimes: what runs a network: torch, compiled, OpenVINO, ONNX Runtime."""
