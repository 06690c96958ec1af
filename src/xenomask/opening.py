"""Any name, folder or file -> what predicts: a detector folder, a shipped or a Hub's name, or an exported file.

It stands above export. What it chooses itself (device, runtime, kernel) is said through `say`, a line each.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenomask.errors import XenomaskError

if TYPE_CHECKING:
    from xenomask.detector import Detector
    from xenomask.detector.predictor import Predictor
    from xenomask.types import Size

# what is there where a GPU may be: NVIDIA's and AMD's drivers on Linux, Windows' in WSL
GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
SMALL = 4_000_000  # pixels of a photo that NumPy scores before numba has loaded its kernel
Say = Callable[[str], None]


def quiet(line: str) -> None:
    """Say nothing."""


def choose_device(name: str | None, say: Say, runtime: str = "") -> str:
    """Choose once and say what (`runtime`: how that goes on); raises XenomaskError for a device that is not there."""
    import torch

    from xenomask.models.device import check_device

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name is None else name
    check_device(chosen)
    say(f"device {chosen}{'' if name else ' (choose with --device)'}{runtime}")
    return chosen


def open_detector(
    detector: str, device: str | None, score: str | None = None, member: str | None = None,
    runtime: str | None = None, *, say: Say = quiet, precision: str = "float32",
    work: tuple[tuple[int, int], int, int] | None = None, kernel: str | None = None, tta: str | None = None,
    sizes: "Sequence[Size] | None" = None, once: bool = False, refine: Sequence[str] | None = None,
) -> "Predictor":  # fmt: skip
    """Open a detector folder or a Hub's in the runtime asked for, or an exported file in its own.

    `work` is (size of the photos, how many, how many together): the runtime is then auto where none is named. Where the
    runtime may be OpenVINO and its graphs for photos of all `sizes` are kept (None: of any size; (): they are not
    looked for), the networks run by these and torch is not loaded (`once`: each is dropped when it was run). `kernel`
    is said where it is given; `refine` ("none") takes the detector's own refinements away. Raises XenomaskError for
    what is not there, damaged, or asks for what it has not.
    """
    from xenomask.detector.find import check_member, check_name, is_exported
    from xenomask.models.tta import parse_tta

    check_name(detector)
    if member:
        check_member(detector, member)
    views = None if tta is None else parse_tta(tta)  # before anything is loaded
    if refine:
        from xenomask.refine import check_names

        check_names(refine)
    if runtime == "auto" and work is None:
        runtime = None
    exported, auto = is_exported(detector), work is not None and runtime in (None, "auto")
    if exported and precision != "float32":
        raise XenomaskError(f"{detector} computes in what it was exported in: leave --precision out")
    kept = None
    if sizes != () and not exported and precision == "float32" and views is None:
        kept = _open_kept(detector, device, say, runtime, sizes, work[2] if work else 1, once)
    if kept is not None:
        found = kept
    elif exported:
        found = _open_file(detector, device, say, None if auto else runtime)
    else:
        found = _open_folder(detector, device, say, "torch" if auto else runtime, precision, auto=auto)
    if member:
        found = found.opened("member").only(member)
    if views is not None:
        if found.thresholds and not score:
            say(f"note: the stored threshold of {found.name} is for maps without test-time augmentation: left out")
        found = found.opened("tta").with_tta(*views)
    if work and auto and not exported and kept is None:
        found = _in_best_runtime(found, say, *work)
    found = found.opened("score").with_score(score) if score else found
    if kernel is not None:
        small = once and bool(sizes) and all(h * w <= SMALL for h, w in sizes)
        found = _with_kernel(found, say, kernel, small=small, kept=kept is not None)
    return with_refine(found, refine, say=say)


def with_refine(found: Any, refine: Sequence[str] | None, *, say: Say = quiet) -> Any:
    """The detector with these refinements ("none": without any), or as it is for None; says what that leaves out."""
    none = list(refine or ()) == ["none"]
    if not refine or (none and not found.refine):
        return found
    chosen = found.opened("refine").with_refine([] if none else refine)
    if found.thresholds and not chosen.thresholds:
        say(f"note: the stored threshold of {found.name} is for its maps as they are refined there: left out")
    return chosen


def _with_kernel(found: Any, say: Say, kernel: str, *, small: bool, kept: bool) -> Any:
    """Choose once, and say what and why; networks without masks have no such choice.

    `small`: for one small photo, for which no compiled kernel is loaded; `kept`: its networks run by stored graphs.
    """
    from xenomask.scores.backend import choose
    from xenomask.scores.codes import MAX_LOGIT

    if not found.members:
        if kernel != "auto":
            raise XenomaskError(f"{found.name} computes its scores in its own graph: leave --kernel out")
        return found
    on_cpu = all(m.network.device == "cpu" for m in found.used)
    if small and kernel == "auto" and on_cpu and all(m.score.twin == MAX_LOGIT for m in found.used):
        kernel = "numpy"  # a sixth of a second; numba takes one to load, and ten to compile at the first use
        if not kept:
            from xenomask.models.deformable import leave_kernel

            for m in found.used:
                leave_kernel(m.network.module)
    chosen = found.with_kernel(kernel)
    if not all(m.network.per_pixel for m in chosen.used):
        path = choose(kernel, chosen.used[0].network.device)
        say(f"score kernel {path.name}: {path.why} (choose with --kernel)")
    return chosen


def _in_best_runtime(found: Any, say: Say, size: tuple[int, int], frames: int, batch: int) -> "Detector":
    """Choose once, and say what and why."""
    from xenomask.models.runtimes.runtime import choose_runtime

    networks = [m.network for m in found.used if not m.network.view.mirror]  # the others share their graphs
    device = str(next(networks[0].module.parameters()).device)
    chosen, why = choose_runtime(networks, size, frames, batch, device)
    say(f"runtime {chosen}: {why} (choose with --runtime)")
    return found.with_runtime(chosen, device)


def _open_folder(
    detector: str, device: str | None, say: Say, runtime: str | None, precision: str = "float32", *, auto: bool = False
) -> "Detector":
    from xenomask.detector import Detector
    from xenomask.detector.hub import is_remote
    from xenomask.models.runtimes.runtime import check_runtime
    from xenomask.models.runtimes.sessions import CPU_ONLY

    chosen = runtime or "torch"
    check_runtime(chosen, device or "cpu")
    said = "" if auto else f", runtime {chosen}{'' if runtime else ' (choose with --runtime)'}"
    own_device = choose_device("cpu" if chosen in CPU_ONLY else device, say, said)
    if is_remote(detector):
        return _open_remote(detector, own_device).with_precision(precision).with_runtime(chosen, own_device)
    if precision == "float32":
        return Detector.from_folder(detector, own_device, chosen)
    return Detector.from_folder(detector, own_device).with_precision(precision).with_runtime(chosen, own_device)


def _open_kept(
    detector: str, device: str | None, say: Say, runtime: str | None, sizes: "Sequence[Size] | None",
    batch: int, once: bool,
) -> "Detector | None":  # fmt: skip
    """The detector by graphs that earlier runs kept, without torch; None where it cannot be, or a GPU may be there."""
    from xenomask.detector import Detector
    from xenomask.detector.hub import is_remote

    gpu = device is None and (any(Path(p).exists() for p in GPUS) or shutil.which("nvidia-smi"))
    if gpu or device not in (None, "cpu") or runtime not in (None, "auto", "openvino") or is_remote(detector):
        return None
    found = Detector.from_kept(
        detector, sizes, batch, fallback=runtime if runtime == "openvino" else "torch", once=once
    )
    if found is not None:
        chosen = ": its graphs are kept from an earlier run (choose with --runtime)" if runtime != "openvino" else ""
        say(f"device cpu{'' if device else ' (choose with --device)'}, runtime openvino{chosen}")
    return found


def _open_file(file: str, device: str | None, say: Say, runtime: str | None) -> "Predictor":
    from xenomask.export import open_exported

    own = "onnxruntime" if file.endswith(".onnx") else "openvino"
    if runtime not in (None, own):
        raise XenomaskError(f"{file} runs in {own}, not in {runtime}: leave --runtime out, or name the detector folder")
    if device and not device.startswith("cpu"):
        raise XenomaskError(f"{file} runs in {own} on the CPU: leave --device {device} out, or name the folder")
    say(f"device cpu, runtime {own}, as {Path(file).name} is a file for it")
    return open_exported(Path(file))


def open_masks(
    detector: str, device: str | None, score: str | None = None, member: str | None = None, runtime: str | None = None,
    tta: str | None = None, refine: Sequence[str] | None = None, *, say: Say = quiet,
    sizes: "Sequence[Size] | None" = None,
) -> "Detector":  # fmt: skip
    """`open_detector` where each member's queries are asked for, which a fused file has no more.

    Raises XenomaskError for such a file.
    """
    found = open_detector(detector, device, score, member, runtime, say=say, tta=tta, refine=refine, sizes=sizes)
    return found.opened("queries")


def _open_remote(name: str, device: str) -> "Detector":
    """The detector of a known name or hf:org/name."""
    from xenomask.detector.detector import from_fetched
    from xenomask.detector.hub import fetch
    from xenomask.offline import asking_hub

    with asking_hub():
        found = fetch(name)
    return from_fetched(found, device)
