"""Graphs ready to run: OpenVINO's and ONNX Runtime's sessions, arrays in and out. Nothing here imports torch."""

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from xenomask.errors import XenomaskError
from xenomask.jit import thread_count
from xenomask.offline import imported

RUNTIMES = ("torch", "compiled", "openvino", "onnxruntime")
CPU_ONLY = RUNTIMES[2:]
KEY = "xenomask"  # under which files hold what they are, as JSON
ONNX_LIMIT = 2**31  # bytes of one protobuf message
Session = Callable[[np.ndarray], list[np.ndarray]]


def need(package: str, extra: str) -> Any:
    """The imported optional package; raises XenomaskError that says what to install."""
    try:
        return imported(package)
    except ImportError as e:
        raise XenomaskError(f"{package} is not installed: pip install 'xenomask[{extra}]'") from e


def read_openvino(path: Path, weights: Path) -> tuple[Any, bytes, str]:
    """The openvino.Model of an .xml and a .bin file, the bytes of the one and the SHA-256 of the other.

    Both are read into memory: a mapped .bin, OpenVINO's own way, that is written over changes the network under way,
    and cut short ends the process. Raises OSError, and RuntimeError or ValueError for damaged files.
    """
    openvino = need("openvino", "openvino")
    text = path.read_bytes()
    tensor = read_tensor(weights)
    digest = hashlib.sha256(memoryview(tensor.data)).hexdigest()
    return openvino.Core().read_model(text.decode(), tensor), text, digest


def read_tensor(path: Path) -> Any:
    """A file's bytes as an openvino.Tensor; OSError, and ValueError where it was cut short."""
    openvino = need("openvino", "openvino")
    with path.open("rb") as f:
        size = os.fstat(f.fileno()).st_size
        tensor = openvino.Tensor(openvino.Type.u8, openvino.Shape([size]))
        view, done = memoryview(tensor.data), 0
        while done < size and (n := f.readinto(view[done:])):
            done += n
    if done < size:
        raise ValueError(f"{path} was cut short while it was read")
    return tensor


def openvino_session(model: Any) -> Session:
    """An openvino.Model ready for the CPU, in float32 also where the CPU would take bfloat16."""
    return compiled_session(compile_openvino(model))


def compile_openvino(model: Any) -> Any:
    """The openvino.CompiledModel of a model, in float32; XenomaskError where OpenVINO has none."""
    openvino = need("openvino", "openvino")
    try:
        with signal_stack_kept():
            return openvino.Core().compile_model(model, "CPU", own_settings())
    except Exception as e:  # openvino raises RuntimeError and its own
        raise XenomaskError(f"openvino cannot compile this graph: {_short(e)}") from e


def import_openvino(tensor: Any) -> Any:
    """The openvino.CompiledModel that was exported to these bytes, in float32; RuntimeError where OpenVINO has none.

    NOTE: the bytes do not say how exact they shall be: without `own_settings` OpenVINO (2026.4.1) runs them in bfloat16
    where the CPU has it, which moved maps by .5, to other values at each start.
    """
    with signal_stack_kept():
        return need("openvino", "openvino").Core().import_model(tensor, "CPU", own_settings())


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Inside, OpenVINO may compile: it (2026.4.1) leaves a stack for signals that is unmapped, where Ctrl-C crashes."""
    kept = ctypes.create_string_buffer(64)  # more than a stack_t takes
    known = None if os.name == "nt" else getattr(ctypes.CDLL(None), "sigaltstack", None)
    if known:
        known(None, kept)
    try:
        yield
    finally:
        if known:
            known(kept, None)


def own_settings() -> dict[str, Any]:
    """What OpenVINO is told each time: float32, and the threads where OMP_NUM_THREADS says how many, as with Ray.

    Who sets it runs several processes, and OpenVINO pins each one's threads to the first cores: all would share these.
    """
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    if not os.environ.get("OMP_NUM_THREADS"):
        return exact
    return {**exact, "INFERENCE_NUM_THREADS": thread_count(), "ENABLE_CPU_PINNING": False}


def compiled_session(compiled: Any) -> Session:
    """A session of an openvino.CompiledModel; threads take turns."""
    lock = threading.Lock()  # it has one request: two threads would silently get each other's answers

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            with lock:
                found = compiled([x])
                return [np.array(found[i]) for i in range(len(compiled.outputs))]
        except Exception as e:
            raise XenomaskError(f"openvino stopped: {_short(e)}") from e

    return run


def onnx_session(model: bytes) -> Session:
    """The bytes of an ONNX model ready for ONNX Runtime's CPU provider."""
    onnxruntime = need("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come as exceptions
    options.enable_mem_pattern = False  # a plan of the first run's memory, which from the second on doubles it
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's exceptions have no common class
        raise XenomaskError(f"onnxruntime cannot load this graph: {_short(e)}") from e
    name = session.get_inputs()[0].name

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            return session.run(None, {name: x})
        except Exception as e:
            raise XenomaskError(f"onnxruntime stopped: {_short(e)}") from e

    return run


def _short(e: BaseException) -> str:
    """The last line that says something, as these libraries put the cause there."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(e).__name__
