"""An exported file -> ExportedDetector, or (a file of queries) a Detector whose network runs in the file's runtime."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xenomask.arrays import ImageLike, as_image
from xenomask.datasets.photos import as_photo
from xenomask.detector import Detector, Member
from xenomask.detector.find import QUANTIZED
from xenomask.detector.folder import read_refine, read_thresholds
from xenomask.detector.member import plain
from xenomask.detector.prediction import predict
from xenomask.detector.predictor import Predictor
from xenomask.errors import XenomaskError, first_line
from xenomask.export.content import CONTENT, OUTPUTS, VERSION, content_of
from xenomask.files import read_object
from xenomask.models.preprocess import Preprocess, check_preprocess, target_size
from xenomask.models.runtimes.sessions import (
    KEY,
    ONNX_LIMIT,
    Session,
    need,
    onnx_session,
    openvino_session,
    read_openvino,
)
from xenomask.objects.ignore import IgnoreRegion, read_region
from xenomask.refine import Refinement
from xenomask.scores import get_score
from xenomask.shapes import Float32, UInt8
from xenomask.types import QuerySet, ScoreMap, Size

log = logging.getLogger(__name__)

# What cannot be changed in an exported file, and what to do instead.
INSIDE = {
    "score": "its score {score} is part of it: export another with --score, or export with --queries",
    "member": "its members are fused inside: export one alone with --member",
    "tta": "of one forward pass: name the detector folder for --tta",
    "refine": "what refines its map is part of it: export another with --refine, or name the detector folder",
    "queries": "its queries are part of it: name its folder, or export with --queries",
}


@dataclass(frozen=True)
class ExportedDetector:
    """A detector in one file, run without its networks' code."""

    name: str
    session: Session
    metadata: Mapping[str, Any]
    sha256: str
    size: Size  # of its photos
    scale: tuple[float, float]
    score_name: str
    thresholds: Mapping[str, Mapping[str, Any]]
    ignore: IgnoreRegion | None = None
    members: tuple[Member, ...] = ()  # they are inside
    runtime: str = "exported"
    precision: str = "float32"
    largest_batch: int | None = 1
    _told: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def refine(self) -> tuple[Refinement, ...]:
        """What refines the map inside of the file."""
        return read_refine(self.metadata)

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the members inside."""
        return tuple(str(m["name"]) for m in self.metadata["members"])

    @property
    def reads(self) -> frozenset[str]:
        """The parts of query sets that its members' scores read."""
        return frozenset(part for m in self.metadata["members"] for part in get_score(m["score"]).reads)

    @property
    def chosen_on(self) -> frozenset[str]:
        """The data sets on which its members' outlier queries were chosen."""
        origins = (m["queries"]["origin"] for m in self.metadata["members"])
        return frozenset(o["outlier"]["dataset"] for o in origins if "outlier" in o)

    def detect(self, image: ImageLike) -> ScoreMap:
        """Return the anomaly map of one RGB photo, at its size.

        A photo of another size than the file's is resized, said once. Raises XenomaskError for what
        `datasets.photos.as_photo` refuses, where the runtime stops, and where the map is not what the file promised.
        """
        return self.fuse(self.infer([self.prepare(image)])[0])

    def __call__(self, photos: Any) -> Any:
        """Return the Prediction of a photo, or a list of them of a list of photos, one after the other."""
        return predict(self, photos)

    def prepare(self, image: ImageLike) -> tuple[UInt8[np.ndarray, "_ _ 3"], Size]:
        """Resize one photo to the file's size, where it has one; its own size is kept beside it."""
        image = as_photo(image)
        H, W = image.shape[:2]
        if (H, W) == self.size or self.metadata.get("dynamic") is True:
            return image, (H, W)
        h, w = self.size
        self._tell(f"{self.name} was exported for {w}x{h} photos: one of {W}x{H} is resized, and its map back")
        return resized(image, self.size), (H, W)

    def infer(
        self, photos: Sequence[tuple[UInt8[np.ndarray, "_ _ 3"], Size]]
    ) -> list[tuple[Float32[np.ndarray, "_ _"], Size]]:
        """Return the graph's map of each prepared photo, as many together as the file takes."""
        most = self.largest_batch or len(photos)
        together = [[image for image, _ in photos[i : i + most]] for i in range(0, len(photos), most)]
        maps = [value for images in together for value in self._run(images)]
        return [(value, size) for value, (_, size) in zip(maps, photos, strict=True)]

    def fuse(self, outputs: tuple[Float32[np.ndarray, "_ _"], Size]) -> ScoreMap:
        """Return the map at the photo's own size."""
        value, (H, W) = outputs
        if value.shape != (H, W):
            value = cv2.resize(value, (W, H), interpolation=cv2.INTER_LINEAR)
        return ScoreMap(value, self.score_name)

    def nearest(self, outputs: tuple[Float32[np.ndarray, "_ _"], Size]) -> None:
        """The graph gives the map alone."""

    def classes(self, outputs: Any) -> None:
        """Raises XenomaskError: the graph gives the map alone."""
        raise XenomaskError(
            f"{self.name} is an exported file, which gives maps and no classes: name the detector itself"
        )

    def describe(self) -> dict[str, Any]:
        """What decides its maps, ready for JSON: the detector that was exported, and the file."""
        return {**self.metadata["describe"], "exported": {"sha256": self.sha256, "size": self.metadata["size"]}}

    def opened(self, what: str) -> Detector:
        """Raises XenomaskError: score, members, inference and queries are inside the graph."""
        raise XenomaskError(f"{self.name} is an exported file, {INSIDE[what].format(score=self.score_name)}")

    def _run(self, images: Sequence[np.ndarray]) -> np.ndarray:
        missing = (self.largest_batch or len(images)) - len(images)
        x = np.stack([*images, *[np.zeros_like(images[0])] * missing])
        value = self.session(x)[0]
        if value.shape != x.shape[:3] or value.dtype != np.float32:
            raise XenomaskError(f"{self.name} gave {value.dtype} {value.shape}, not a map of its photo: damaged file")
        if not np.isfinite(value).all():
            raise XenomaskError(f"{self.name}: the map is not finite")
        return value[: len(images)]

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told.add(text)
            log.warning("%s", text)


def resized(image: ImageLike, size: Size) -> UInt8[np.ndarray, "_ _ 3"]:
    """A photo (H, W, 3) at another (height, width), averaged where it shrinks; XenomaskError for what is no photo."""
    image = as_image(image)
    H, W = image.shape[:2]
    h, w = size
    if (H, W) == size:
        return image
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if h < H and w < W else cv2.INTER_LINEAR)


def open_exported(path: str | Path) -> Predictor:
    """Opens a file that `xenomask export` wrote: .onnx in ONNX Runtime, .xml (with its .bin) in OpenVINO, on the CPU.

    Or a folder that `xenomask quantize` wrote, whose networks' files become one Detector's members.

    Raises XenomaskError for a missing, damaged or foreign file, for ONNX files that refer to others, and where the
    runtime is not installed.
    """
    path = Path(path)
    if (path / QUANTIZED).is_file():
        return _open_folder(path)
    if not path.is_file():
        raise XenomaskError(f"no such file: {path}")
    if not path.stat().st_size:
        raise XenomaskError(f"{path} is empty: export the detector again")
    metadata, ports, start, digest = (_open_onnx if path.suffix == ".onnx" else _open_openvino)(path)
    try:
        _check_ports(path, metadata, ports)
        opened = _queries if metadata["kind"] == "queries" else _fused
        found = opened(path, metadata, start, digest)
        _ = found.describe(), found.networks, found.reads, found.chosen_on
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as e:
        raise XenomaskError(f"{path} has damaged metadata: {e!r}; export it again") from e
    return found


def _open_folder(folder: Path) -> Detector:
    table = read_object(folder / QUANTIZED)
    try:
        members, contents = [], dict(table.get("contents", {}))
        for name, weight in table["weights"].items():
            found = open_exported(folder / f"{plain(name)}.xml")
            (member,) = found.opened("queries").members
            if name in contents and contents[name] != member.network.facts["content"]:
                raise XenomaskError(f"{folder / name}.xml is not the one that {QUANTIZED} names: copy the folder again")
            members.append(replace(member, name=name, weight=float(weight)))
        thresholds = read_thresholds(table["thresholds"])
        region, refine = read_region(table.get("ignore")), read_refine(table)
        return Detector(str(table["name"]), tuple(members), thresholds, ignore=region, refine=refine)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise XenomaskError(f"{folder / QUANTIZED} is damaged: {e!r}; quantise again") from e


def _fused(path: Path, metadata: Mapping[str, Any], start, digest: str) -> ExportedDetector:
    size = metadata["size"]
    low, high = metadata["scale"]
    thresholds = read_thresholds(metadata["thresholds"])
    for m in metadata["members"]:
        _preprocess(m)
    return ExportedDetector(
        str(metadata["name"]), start(), metadata, digest, (int(size[0]), int(size[1])),
        (float(low), float(high)), str(metadata["score"]), thresholds, read_region(metadata.get("ignore")),
        largest_batch=metadata.get("batch", 1),
    )  # fmt: skip


def _queries(path: Path, metadata: Mapping[str, Any], start, digest: str) -> Detector:
    from torch import nn
    from transformers import PreTrainedConfig

    from xenomask.models.network import Network
    from xenomask.models.runtimes.runtime import logits

    (m,) = metadata["members"]
    config = PreTrainedConfig(id2label=dict(enumerate(m["classes"])))
    stored = m["queries"]
    queries = QuerySet(
        stored["checkpoint_sha256"], {int(q): int(c) for q, c in stored["inlier"].items()},
        {int(q): float(v) for q, v in stored["outlier"].items()}, tuple(stored["ground"]), stored["origin"],
    )  # fmt: skip
    facts = {"source": str(path), "exported": metadata["size"], "content": metadata.get(CONTENT)}
    run, runtime = _sized(path, metadata, logits(start())), "onnxruntime" if path.suffix == ".onnx" else "openvino"
    network = Network(nn.Module(), config, _preprocess(m), digest, facts, run, runtime)
    member = Member(str(m["name"]), network, queries, get_score(m["score"], m["options"]), 1.0)
    thresholds, region = read_thresholds(metadata["thresholds"]), read_region(metadata.get("ignore"))
    refine = read_refine(metadata)
    return Detector(str(metadata["name"]), (member,), thresholds, ignore=region, refine=refine)


def _sized(path: Path, metadata: Mapping[str, Any], run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """In batches as the file takes them; raises XenomaskError for photos of another size than the file's."""
    import torch

    H, W = metadata["size"]
    p = _preprocess(metadata["members"][0])
    h, w = target_size(p, (int(H), int(W)))
    expected, most = (3, h + -h % p.divisor, w + -w % p.divisor), metadata.get("batch", 1)

    def checked(x: Any) -> Any:
        if tuple(x.shape[1:]) != expected:
            raise XenomaskError(
                f"{path} looks at photos of {W}x{H} (network input {expected[2]}x{expected[1]}), this one needs "
                f"{x.shape[3]}x{x.shape[2]}: export with this photo's --size"
            )
        parts = []
        for own in x.split(most or len(x)):
            missing = (most or len(own)) - len(own)
            parts.append([t[: len(own)] for t in run(torch.cat([own, own.new_zeros(missing, *expected)]))])
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    return checked


def _preprocess(member: Mapping[str, Any]) -> Preprocess:
    stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in member["preprocess"].items()}
    p = Preprocess(**stored)
    check_preprocess(p)
    return p


def _metadata(path: Path, text: str | None, data: bytes, *others: str) -> dict[str, Any]:
    """A file's metadata, once its bytes (and the hashes of its other files) are those that were written."""
    if not text:
        raise XenomaskError(f"{path} was not written by `xenomask export`: it says nothing of its score and photos")
    try:
        metadata = json.loads(text)
        if metadata["version"] != VERSION or metadata["kind"] not in OUTPUTS:
            raise XenomaskError(f"{path} has metadata of version {metadata['version']}, this xenomask reads {VERSION}")
        if CONTENT not in metadata:
            log.warning("%s has no hash of its content, so a change would not be noticed: export it again", path)
        elif content_of(data, *others)[0] != metadata[CONTENT]:
            raise XenomaskError(f"{path}{' or its .bin' * bool(others)} is not as it was written: copy it again")
        return metadata
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise XenomaskError(f"{path} has damaged metadata: {e!r}; export it again") from e


def _check_ports(path: Path, metadata: Mapping[str, Any], ports: Mapping[str, tuple]) -> None:
    """Raises XenomaskError unless the graph's inputs and outputs are those that its metadata promises."""
    size, kind = metadata["size"], metadata["kind"]
    names = ["image", *OUTPUTS[kind]]
    if list(ports) != names:
        raise XenomaskError(
            f"{path} has inputs and outputs {', '.join(ports)}, not {', '.join(names)}: a foreign graph"
        )
    shape, known = ports["image"], 3 if kind == "map" else 1  # a network's own size does not stand in the metadata
    expected = [metadata.get("batch", 1), *([None, None] if metadata.get("dynamic") is True else size)]
    if len(shape) != 4 or list(shape[:known]) != expected[:known]:
        raise XenomaskError(
            f"{path} says that it takes {expected[0]} photos of {size}, but its graph takes {shape}: damaged file"
        )


def _open_onnx(path: Path):
    onnx = need("onnx", "onnx")
    need("onnxruntime", "onnx")
    if path.stat().st_size >= ONNX_LIMIT:
        raise XenomaskError(f"{path} is larger than an ONNX file can be")
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as e:  # protobuf's DecodeError
        raise XenomaskError(f"{path} is damaged or no ONNX file") from e
    if _external(model):
        raise XenomaskError(f"{path} keeps weights in other files, which `xenomask export` never writes: refused")
    metadata = _metadata(path, {p.key: p.value for p in model.metadata_props}.get(KEY), data)
    try:
        onnx.checker.check_model(model)
        ports = {
            v.name: tuple(d.dim_value or None for d in v.type.tensor_type.shape.dim)
            for v in (*model.graph.input, *model.graph.output)
        }
    except Exception as e:  # onnx.checker's ValidationError and others
        raise XenomaskError(f"{path} is no valid ONNX graph: {first_line(e)}") from e
    return metadata, ports, lambda: _named(path, onnx_session, data), hashlib.sha256(data).hexdigest()


def _external(message: Any) -> bool:
    """Whether any tensor inside, in whatever subgraph or function, says that its values lie in another file."""
    if message.DESCRIPTOR.name == "TensorProto":
        return message.data_location == 1 or len(message.external_data) > 0
    for field_, value in message.ListFields():
        if field_.message_type is None:
            continue
        if any(_external(v) for v in (value if _repeated(value) else [value])):
            return True
    return False


def _repeated(value: Any) -> bool:
    return not hasattr(value, "DESCRIPTOR")


def _open_openvino(path: Path):
    need("openvino", "openvino")
    if not path.with_suffix(".bin").is_file():
        raise XenomaskError(f"{path} lacks its weights, {path.with_suffix('.bin').name}, which must lie beside it")
    try:
        model, data, weights = read_openvino(path, path.with_suffix(".bin"))
        text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
    except Exception as e:  # openvino raises RuntimeError and its own
        raise XenomaskError(f"{path} is damaged or no OpenVINO file") from e
    metadata = _metadata(path, text, data, weights)
    ports = {
        p.get_any_name(): tuple(d.get_length() if d.is_static else None for d in p.get_partial_shape())
        for p in (*model.inputs, *model.outputs)
    }
    digest = f"{weights}+{hashlib.sha256(data).hexdigest()}"
    return metadata, ports, lambda: _named(path, openvino_session, model), digest


def _named(path: Path, start, model) -> Session:
    try:
        return start(model)
    except XenomaskError as e:
        raise XenomaskError(f"{path}: {e}") from e
