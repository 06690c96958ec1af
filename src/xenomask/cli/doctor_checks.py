"""This installation -> what it can do: versions, devices, compiled paths, runtimes, extras, detectors."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from xenomask.offline import imported
from xenomask.version import __version__

# module, distribution, what it brings, the extra that installs it
OPTIONAL = (
    ("openvino", "openvino", "runtime openvino, export --format openvino", "openvino"),
    ("onnxruntime", "onnxruntime", "runtime onnxruntime, export --format onnx", "onnx"),
    ("nncf", "nncf", "quantize (int8)", "int8"),
    ("ray", "ray", "score --engine ray", "ray"),
    ("ray.serve", "ray", "xenomask serve", "serve"),
    ("gradio", "gradio", "xenomask app", "app"),
    ("tensorboard", "tensorboard", "training curves in TensorBoard", "train"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report; "off" is something optional that is not there."""

    what: str
    state: Literal["ok", "off", "wrong"]
    text: str


def examine(offline: bool) -> list[Finding]:
    """All findings, in the order of the report; nothing is downloaded, and no check's failure hides the next.

    `offline`: whether the user keeps the Hub away.
    """
    found = [Finding("xenomask", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")]
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("PyTorch", _torch),
        ("score kernels", _kernels),
        ("extras", _extras),
        ("disk", _disk),
        ("detectors", _detectors),
    ]
    for what, check in checks:
        try:
            found += check()
        except Exception as e:  # whatever is broken is what the doctor is asked about
            found.append(Finding(what, "wrong", f"{type(e).__name__}: {e}"))
    hub = "not asked (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)" if offline else "asked only by --detector hf:NAME"
    return [*found, Finding("Hub", "ok", hub)]


def _torch() -> list[Finding]:
    import torch

    found = [Finding("PyTorch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return [*found, Finding("GPU", "ok", "; ".join(names))]
    why = "none that CUDA can use" if torch.version.cuda else "this PyTorch is built without CUDA"
    return [*found, Finding("GPU", "off", f"{why}; all runs on the CPU")]


def _kernels() -> list[Finding]:
    import torch

    from xenomask.scores.backend import choose

    found = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        path = choose("auto", device)
        state = "wrong" if path.name == "torch" else "ok"
        found.append(Finding(f"score kernel, {device}", state, f"{path.name}: {path.why}"))
    return found


def _extras() -> list[Finding]:
    found = []
    for module, package, brings, extra in OPTIONAL:
        try:
            own = version(package)
        except PackageNotFoundError:
            found.append(Finding(module, "off", f'not installed: {brings}; pip install "xenomask[{extra}]"'))
            continue
        try:
            imported(module)
            found.append(Finding(module, "ok", f"{own}: {brings}"))
        except Exception as e:  # a broken binary raises whatever it likes
            # a part of the package that another extra installs
            if module.startswith(f"{package}.") and isinstance(e, ModuleNotFoundError):
                text = f'not installed with {package} {own}: {brings}; pip install "xenomask[{extra}]"'
                found.append(Finding(module, "off", text))
            else:
                found.append(Finding(module, "wrong", f"{own} is installed and does not load: {e}"))
    return found


def _disk() -> list[Finding]:
    from xenomask.files import home

    free = shutil.disk_usage(Path.cwd()).free / 1e9
    here = Finding("disk", "ok" if free > 1 else "wrong", f"{free:.1f} GB free in {Path.cwd()}")
    cache = home()
    place = next(p for p in (cache, *cache.parents) if p.exists())
    writable = place.is_dir() and os.access(place, os.W_OK)
    text = f"{cache} ({'can be written' if writable else 'cannot be written: set XENOMASK_HOME'})"
    return [here, Finding("own folder", "ok" if writable else "wrong", text)]


def _detectors() -> list[Finding]:
    from xenomask.detector import Detector
    from xenomask.detector.find import SHIPPED
    from xenomask.detector.hub import on_machine
    from xenomask.detector.known import KNOWN

    found = []
    for name in sorted(p.parent.name for p in SHIPPED.glob("*/detector.json")):
        shipped = Detector.from_folder(name)
        networks = ", ".join(m.name for m in shipped.members)
        found.append(Finding(f"detector {name}", "ok", f"shipped: {networks}; score {shipped.score_name}"))
    for known in KNOWN.values():
        place = on_machine(known)
        text = f"on this machine: {place}" if place else f"not on this machine; --detector {known.name} downloads it"
        found.append(Finding(f"detector {known.name}", "ok" if place else "off", text))
    return found


def verdict(findings: list[Finding]) -> str:
    """What works here and what is missing for what, in one line.

    >>> verdict([Finding("gradio", "off", ""), Finding("GPU", "off", "")])
    'ready: detect, video, explain, score, evaluate, report, train work here; missing: gradio for xenomask app'
    >>> verdict([Finding("disk", "wrong", "full")])
    'not ready: disk is wrong, see above'
    """
    if wrong := [f.what for f in findings if f.state == "wrong"]:
        return f"not ready: {', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} wrong, see above"
    off = {f.what for f in findings if f.state == "off"}
    missing = ", ".join(f"{module} for {brings}" for module, _, brings, _ in OPTIONAL if module in off)
    return "ready: detect, video, explain, score, evaluate, report, train work here" + (
        f"; missing: {missing}" if missing else ""
    )


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing is wrong: what is optional may be off."""
    return all(f.state != "wrong" for f in findings) and sys.version_info >= (3, 11)
