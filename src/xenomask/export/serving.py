"""An exported file -> the folders that Triton Inference Server and OpenVINO Model Server start from."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError
from xenomask.export.write import OUTPUTS
from xenomask.files import atomic, make_dir

TRITON = {".onnx": "onnxruntime", ".xml": "openvino"}  # Triton's backends
PBTXT = """name: "{name}"
backend: "{backend}"
max_batch_size: {most}
input [ {{ name: "image", data_type: TYPE_UINT8, dims: [ {dims}, 3 ] }} ]
output [ {{ name: "{output}", data_type: TYPE_FP32, dims: [ {dims} ] }} ]
"""
# of a file for any number of photos: how many Triton puts together, and how long the first waits for others
MOST, TOGETHER = 8, "dynamic_batching { max_queue_delay_microseconds: 10000 }\n"


def write_serving(file: Path, metadata: Mapping[str, Any], out: Path) -> None:
    """Writes out/triton/<name>/ and out/ovms/ for a file that `export_detector` wrote, with a copy of it in each.

    Raises XenomaskError for a file of queries, and a folder that exists.
    """
    if metadata["kind"] != "map":
        raise XenomaskError("--serving is for files that give maps: leave --queries out")
    name = file.stem
    batch, size = metadata.get("batch", 1), (-1, -1) if metadata.get("dynamic") else metadata["size"]
    dims = ", ".join(map(str, size if batch is None else (batch, *size)))
    (output,) = OUTPUTS["map"]
    if out.exists():
        raise XenomaskError(f"{out} exists: choose another folder for --serving")
    make_dir(out.parent)
    with atomic(out) as part:
        for server in ("triton", "ovms"):
            folder = part / server / name / "1"
            folder.mkdir(parents=True)
            for own in {file, file.with_suffix(".bin")} if file.suffix == ".xml" else {file}:
                shutil.copy(own, folder / f"model{own.suffix}")
        text = PBTXT.format(name=name, backend=TRITON[file.suffix], output=output, dims=dims, most=0 if batch else MOST)
        text += "" if batch else TOGETHER
        (part / "triton" / name / "config.pbtxt").write_text(text)
        # OpenVINO takes bfloat16 where the CPU has it: other maps than those that the thresholds were measured on
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        table = {"model_config_list": [{"config": {"name": name, "base_path": name, "plugin_config": exact}}]}
        (part / "ovms" / "config.json").write_text(json.dumps(table, indent=1) + "\n")
