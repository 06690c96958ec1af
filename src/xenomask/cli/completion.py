"""What a shell completes in option values. Names stand here written out: a shell does not wait for torch and cv2."""

from collections.abc import Callable

SCORES = (
    "msp", "max_logit", "max_share", "entropy", "entropy_softmax", "energy", "not_covered", "rba", "void_mass", "uno",
    "eam", "maskomaly", "maskomaly_no_border", "maskomaly_specialised", "rejection",
)  # fmt: skip
DATASETS = (
    "anomaly-track", "obstacle-track", "lost-and-found", "fishyscapes-lost-and-found", "fishyscapes-static",
    "road-anomaly", "street-hazards", "small-obstacle", "sos", "bdd-anomaly", "issu", "issu-obstacle",
    "bravo", "acdc", "cityscapes", "vistas", "idd", "camvid", "folder", "synthetic",
)  # fmt: skip
REFINEMENTS = ("vehicles", "pooling", "masks", "ugains", "attenuation")
RUNTIMES = ("torch", "compiled", "openvino", "onnxruntime")
PRECISIONS = ("float32", "bfloat16", "float16")
KERNELS = ("auto", "numba", "numpy", "triton", "torch")
ENGINES = ("local", "ray", "slurm")
FORMATS = ("onnx", "openvino")
FILES = ("map", "heatmap", "overlay", "objects")  # --only; objects are said, not written
FITS = ("isotonic", "platt", "temperature", "temperature-bias")
TRACKS = ("anomaly", "obstacle", "issu")
SUITES = ("smiyc-val", "road-val", "all")
CHOICES = ("queries", "weights", "lambda")
DETECTORS = ("nano", "nano-general", "maskomaly-paper", "mask2former-swin-s", "eomt-l")


def names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """The function that completes one name; where none fits, the shell offers files and folders instead.

    >>> names(("msp", "max_logit", "eam"))("m")
    ['msp', 'max_logit']
    """
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


def several(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """The same for a list with commas: its last name is completed, and only with names that are not in it yet.

    >>> several(("msp", "max_logit", "eam"))("msp,m")
    ['msp,max_logit']
    """

    def complete(incomplete: str) -> list[str]:
        *done, last = incomplete.split(",")
        return [",".join([*done, name]) for name in known if name.startswith(last) and name not in done]

    return complete
