"""What MMSegmentation's config says of photos at test time, entry by entry: `data_preprocessor` and the pipeline."""

from collections.abc import Iterator
from typing import Any

from xenomask.errors import XenomaskError, first_line
from xenomask.models.convert.entries import TRAINING, Entries, dotted
from xenomask.models.preprocess import Preprocess, check_preprocess

CITYSCAPES = Preprocess("fit", 1024, 2048)  # what a network of which no config tells anything is tested with
DECODED, LABELS = "photos are decoded by xenomask", "of labels, not of photos"
WHICH_PHOTOS = "which photos are tested, and how they are fetched"
LOADING, TRANSFORMS = "mmcv.transforms.loading.", "mmseg.datasets.transforms."
STEPS = (
    LOADING + "LoadImageFromFile", TRANSFORMS + "loading.LoadImageFromNDArray", LOADING + "LoadAnnotations",
    TRANSFORMS + "loading.LoadAnnotations", TRANSFORMS + "formatting.PackSegInputs",
    "mmcv.transforms.processing.Resize", TRANSFORMS + "transforms.ResizeShortestEdge",
)  # fmt: skip
LOADS, PACK = ("LoadImageFromFile", "LoadImageFromNDArray"), "PackSegInputs"
ANNOTATIONS = ("with_bbox", "with_label", "with_seg", "with_keypoints", "reduce_zero_label", "imdecode_backend",
               "backend_args", "file_client_args")  # fmt: skip


def read_preprocess(config: Entries) -> tuple[Preprocess, bool]:
    """How the config prepares a photo at test time, and whether it has a test pipeline that says the size.

    Raises XenomaskError that names the entry which xenomask cannot do in the same way, and where two pipelines differ.
    """
    mean, std, divisor = _normalisation(config)
    found = [(path, _pipeline(steps)) for path, steps in _pipelines(config)]
    for path, resize in found[1:]:
        if resize != found[0][1]:
            raise XenomaskError(
                f"the config's {found[0][0]} and {path} resize photos differently ({found[0][1][0]} {found[0][1][1:]}, "
                f"{resize[0]} {resize[1:]}): make them equal, or leave one out"
            )
    policy, size, longest = found[0][1] if found else (CITYSCAPES.policy, CITYSCAPES.size, CITYSCAPES.longest)
    p = Preprocess(policy, size, longest, mean, std, divisor)
    try:
        check_preprocess(p)
    except ValueError as e:
        raise XenomaskError(f"the config prepares photos in a way that cannot be: {first_line(e)}") from e
    return p, bool(found)


def _normalisation(config: Entries) -> tuple[Any, Any, int]:
    """Mean, deviation and the multiple that sizes are padded to."""
    model = config.part("model", {})
    e = model if "data_preprocessor" in model else config
    if e is model:  # as in MMEngine's Runner
        config.without_effect({"data_preprocessor": "the model's own replaces it"})
    e = e.part("data_preprocessor")
    e.kind("mmseg.models.data_preprocessor.SegDataPreProcessor")
    if e.only("rgb_to_bgr", False, True) is not True:  # either exchanges the two, and OpenCV reads BGR
        e.only("bgr_to_rgb", True, default=False)
    else:
        e.only("bgr_to_rgb", False)
    e.only("pad_val", 0)
    mean, std = (e.three(key, None) for key in ("mean", "std"))
    e.without_effect(dict.fromkeys(("size", "size_divisor", "batch_augments"), TRAINING) | {"seg_pad_val": LABELS})
    if not _is_there(e, "test_cfg"):  # not padded at all
        return mean, std, 1
    test = e.part("test_cfg")
    test.only("size", None)
    divisor = test.take("size_divisor", 1)
    if type(divisor) is not int or not 1 <= divisor <= 1024:
        test.refuse("size_divisor", divisor, "is no number of pixels in 1..1024")
    return mean, std, divisor


def _pipelines(config: Entries) -> Iterator[tuple[str, list[Entries]]]:
    """Each list of steps that a photo goes through at test time, by its path."""
    waiting = [config.part("test_dataloader")] if _is_there(config, "test_dataloader") else []
    while waiting:
        e = waiting.pop()
        if _is_there(e, "pipeline"):
            yield dotted((*e.path, "pipeline")), e.parts("pipeline")
        if _is_there(e, "dataset"):  # of the loader, or of a wrapper around a data set
            waiting.append(e.part("dataset"))
        if _is_there(e, "datasets"):
            waiting += e.parts("datasets")
        names = (str(k) for k in e.values if k not in ("pipeline", "dataset", "datasets"))
        e.without_effect(dict.fromkeys(names, WHICH_PHOTOS))
    if _is_there(config, "test_pipeline"):
        yield "test_pipeline", config.parts("test_pipeline")


def _is_there(e: Entries, key: str) -> bool:
    """Whether there is more than None; None is accounted for."""
    if e.values.get(key) is None:
        e.only(key, None)
        return False
    return True


def _pipeline(steps: list[Entries]) -> tuple[Any, int, int]:
    """(policy, size, longest) of the one resizing among the steps."""
    kinds = [e.kind(*STEPS) for e in steps]
    where = f"the config's {dotted(steps[0].path[:-1])}" if steps else "the config's test pipeline"
    if [kinds.index(k) for k in kinds if k in LOADS] != [0] or kinds.count(PACK) != 1 or kinds[-1] != PACK:
        raise XenomaskError(f"{where} must begin with {' or '.join(LOADS)} and end with {PACK}, each once")
    found = [r for kind, step in zip(kinds, steps, strict=True) if (r := _step(kind, step)) is not None]
    if len(found) > 1:
        raise XenomaskError(f"{where} resizes {len(found)} times; once is supported")
    return found[0] if found else ("none", 0, 0)


def _step(kind: str, e: Entries) -> tuple[Any, int, int] | None:
    """What one step resizes a photo to; None where it leaves the size as it is."""
    if kind in LOADS:
        e.only("to_float32", False)
        e.only("color_type", "color")
        e.only("imdecode_backend", "cv2", "pillow", "turbojpeg")
        e.without_effect(dict.fromkeys(("backend_args", "file_client_args", "ignore_empty"), DECODED))
    elif kind == "Resize":
        e.only("keep_ratio", True, default=False)
        e.only("backend", "cv2")
        e.only("interpolation", "bilinear")
        e.without_effect({"clip_object_border": LABELS, "scale_factor": "scale is said, and goes before it"})
        scale = e.take("scale", None)
        edges = scale if isinstance(scale, tuple) else (scale, scale)
        if len(edges) != 2 or not all(map(_is_edge, edges)):
            e.refuse("scale", scale, "is not supported, only (width, height) in pixels")
        return "fit", min(edges), max(edges)
    elif kind == "ResizeShortestEdge":
        scale, longest = e.take("scale"), e.take("max_size")
        edges = scale if isinstance(scale, tuple) else (scale,)
        if not edges or not all(map(_is_edge, edges)):
            e.refuse("scale", scale, "is no edge in pixels")
        if not _is_edge(longest):
            e.refuse("max_size", longest, "is no edge in pixels")
        return "shortest", min(edges), longest
    elif kind == PACK:
        e.without_effect({"meta_keys": "what is kept beside the photo"})
    else:
        e.without_effect(dict.fromkeys(ANNOTATIONS, LABELS))
    return None


def _is_edge(value: Any) -> bool:
    return type(value) is int and value > 0
