"""Network: image -> MaskOutput (or PixelOutput), and its folder on disk.

A checkpoint is a folder that transformers can load too: `config.json` and `model.safetensors` as Hugging Face
writes them, and `xenomask.json` with the preprocessing, the preset and the training's facts.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save as serialised
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, PreTrainedConfig

from xenomask.arrays import ImageLike, TensorLike, as_array
from xenomask.datasets.photos import as_photo
from xenomask.errors import XenomaskError
from xenomask.files import atomic, finite, make_dir, remove_litter
from xenomask.masks import MaskOutput, PixelOutput, as_logits
from xenomask.models.config import CARD, CONFIG, OUTLIER_NAME, PER_PIXEL, WEIGHTS, outlier_last
from xenomask.models.deformable import use_kernel
from xenomask.models.mahalanobis import KIND, Mahalanobis, MahalanobisConfig
from xenomask.models.one_level import one_level
from xenomask.models.preprocess import Prepared, Preprocess, network_input, under
from xenomask.models.presets import preset, without_warnings
from xenomask.models.tta import View
from xenomask.models.weights import (
    as_type,
    check_shapes,
)
from xenomask.shapes import Float32

# Networks whose position table fits one size.
WINDOWED = ("eomt", "eomt_dinov3")
# Keys of a config.json that are no setting of the network.
WRITTEN = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype")


# What networks may compute in; their weights and outputs stay float32.
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Network:
    """A mask transformer, or a per-pixel network, ready for inference; `facts` go into its xenomask.json."""

    module: nn.Module
    config: PreTrainedConfig
    preprocess: Preprocess
    sha256: str = ""  # of the weights file; "" for a network that was never saved
    facts: Mapping[str, Any] = field(default_factory=dict)
    # batch -> (class logits, mask logits) by another runtime than eager torch (xenomask.models.runtimes)
    run: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    runtime: str = "torch"
    precision: str = "float32"
    # how photos are shown to it; the edge is in `preprocess` already (xenomask.models.runtimes.with_tta)
    view: View = View()
    folder: Path | None = None  # that it was read from, and its module maybe changed since

    @property
    def whole(self) -> "Network":
        """The network with its module: itself (see runtimes.kept)."""
        return self

    @property
    def device(self) -> str:
        """Where it runs, "cpu" or "cuda": an exported file's network has no weights of its own and runs on the CPU."""
        parameter = next(self.module.parameters(), None)
        return "cpu" if parameter is None else parameter.device.type

    @property
    def per_pixel(self) -> bool:
        """Whether it classifies pixels and has no queries."""
        return self.config.model_type in PER_PIXEL

    @property
    def settings(self) -> str:
        """A hash of its configuration, which decides with the weights what it gives."""
        return settings_of(self.config)

    @property
    def outlier_class(self) -> bool:
        """Whether its last class is called "outlier" (UNO): such a class is none of the known ones."""
        return outlier_last(self.config)

    @torch.inference_mode()
    def __call__(self, x: TensorLike) -> tuple[Float32[Tensor, "b q n"], Float32[Tensor, "b q h w"]]:
        """(class logits, mask logits) of a batch (B, 3, H, W) that is normalised, and padded if need be, already.

        Raises XenomaskError for what is no batch of floats, and for a per-pixel network, which has no such pair:
        `class_maps` is its call.
        """
        if self.per_pixel:
            raise XenomaskError(
                f"a {self.config.model_type} has no queries, so no class and mask logits of them: call "
                "`class_maps(batch)` for its logits, or `predict(image)`"
            )
        x = _batch(x)
        if self.run is not None:
            return self.run(x)
        out = self._run(x)
        return out.class_queries_logits.float(), out.masks_queries_logits.float()

    @torch.inference_mode()
    def class_maps(self, x: TensorLike) -> Float32[Tensor, "b k h w"]:
        """The logits of each class and pixel that a per-pixel network gives a batch (B, 3, H, W).

        Raises XenomaskError for what is no batch of floats, and for a mask transformer.
        """
        if not self.per_pixel:
            raise XenomaskError(f"a {self.config.model_type} is a mask transformer: call it for class and mask logits")
        return self._run(_batch(x)).logits.float()

    def _run(self, x: Tensor) -> Any:
        device = next(self.module.parameters()).device
        with self.autocast(device.type):
            return self.module(pixel_values=x.to(device, torch.float32, memory_format=torch.channels_last))

    def autocast(self, device: str) -> torch.autocast:
        """What is to be open where the module runs: its matrix products and convolutions are then in `precision`."""
        return torch.autocast(device, PRECISIONS[self.precision], enabled=self.precision != "float32")

    def predict(
        self, image: ImageLike, size_policy: Literal["stored", "native"] = "stored"
    ) -> MaskOutput | PixelOutput:
        """Looks at one RGB photo of any size, resized as the checkpoint says ("stored") or not at all ("native").

        Either way it is normalised and then padded, right and bottom, to the checkpoint's divisor. The photo is an
        array (H, W, 3), a tensor, a PIL image or a path; XenomaskError for what `datasets.photos.as_photo` refuses.
        """
        return self.infer([self.prepare(image, size_policy)])[0]

    def prepare(self, image: ImageLike, size_policy: Literal["stored", "native"] = "stored") -> Prepared:
        """The first part of `predict`: all before the network."""
        policy, image = under(self.preprocess, size_policy), as_photo(image)
        if self.view.mirror:
            image = np.ascontiguousarray(image[:, ::-1])
        x, input_size = network_input(policy, image)
        return Prepared(x, input_size, (image.shape[0], image.shape[1]))

    def infer(self, photos: Sequence[Prepared]) -> list[MaskOutput] | list[PixelOutput]:
        """The second part of `predict`, for photos whose inputs are of one size: they are one batch."""
        x = torch.cat([p.x for p in photos]) if len(photos) > 1 else photos[0].x
        sizes = [((x.shape[2], x.shape[3]), p.input_size, p.image_size) for p in photos]
        if self.per_pixel:
            return [PixelOutput(maps, *s, self.view.mirror) for maps, s in zip(self.class_maps(x), sizes, strict=True)]
        found = zip(*self(x), sizes, strict=True)
        said = self.outlier_class, self.view.mirror
        return [MaskOutput(classes, masks, *s, *said) for classes, masks, s in found]

    def save(self, folder: Path, *, half: bool = False, weights: Mapping[str, Tensor] | None = None) -> Path:
        """Writes the checkpoint folder, whole or not at all; `half` stores the weights as float16.

        `weights` are stored in place of the module's own (a moving average, or what several processes hold in parts).

        Raises XenomaskError for other architectures than those of OWN, whose Hugging Face folders are used as they are,
        and for weights that float16 cannot hold.
        """
        if not list(self.module.parameters()):
            raise XenomaskError("a network of an exported file has no weights of its own to write: take its folder")
        if self.config.model_type not in OWN:
            raise XenomaskError(f"a {self.config.model_type} is not written anew: use its own folder as it is")
        make_dir(folder.parent)
        tensors = {k: v.detach().cpu().contiguous() for k, v in (weights or self.module.state_dict()).items()}
        if half:
            tensors |= {
                k: as_type(v, torch.float16, k, "as float16") for k, v in tensors.items() if v.is_floating_point()
            }
        card = {"preprocess": asdict(self.preprocess), **self.facts}
        remove_litter(folder.parent, folder.name)
        with atomic(folder) as part:
            part.mkdir()
            # NOTE: not save_file, whose error on a full disk is no OSError
            (part / WEIGHTS).write_bytes(serialised(tensors, metadata={"format": "pt"}))
            (part / CONFIG).write_text(json.dumps(self.config.to_dict(), indent=1) + "\n")
            # a fact may be NaN, such as a log's mIoU, and a card that is no JSON is not read back
            (part / CARD).write_text(json.dumps(finite(card), indent=1, allow_nan=False) + "\n")
        return folder


def _batch(x: TensorLike) -> Tensor:
    """A batch of floats: whole numbers would be photos that nobody normalised."""
    floats = x.is_floating_point() if isinstance(x, Tensor) else as_array(x, "batch").dtype.kind == "f"
    batch = as_logits(x, 4, "batch (B, 3, H, W)")
    if not floats or batch.shape[1] != 3:
        found = f"{tuple(batch.shape)} {'floats' if floats else 'whole numbers'}"
        raise XenomaskError(f"a network takes a normalised batch of floats (B, 3, H, W), not {found}; see `predict`")
    return batch


def mask2former(config: Mask2FormerConfig) -> nn.Module:
    """Return transformers' Mask2Former of that configuration, with our kernel for deformable attention."""
    with without_warnings():
        module = Mask2FormerForUniversalSegmentation(config)
    if min(config.feature_strides[1:]) == 32:  # RbA: the pixel decoder attends on stride 32 only
        one_level(module)
    return use_kernel(module.to(memory_format=torch.channels_last))  # pyright: ignore


# The networks whose folders `Network.save` writes: their configuration, and the module of it.
OWN: dict[str, tuple[Any, Callable[[Any], nn.Module]]] = {
    "mask2former": (Mask2FormerConfig, mask2former),
    KIND: (MahalanobisConfig, Mahalanobis),
}


def build(name: str, classes: Sequence[str] | None = None, queries: int | None = None) -> Network:
    """A network of that preset, random weights (of torch's global generator), with other classes or queries if told."""
    p = preset(name)
    if queries is not None:
        p.config.num_queries = queries
    if classes is not None:
        p.config.id2label = dict(enumerate(classes))
        p.config.label2id = {name: i for i, name in enumerate(classes)}
    return Network(mask2former(p.config).eval(), p.config, p.preprocess, facts={"preset": name})


def with_outlier_class(network: Network, *, released: bool = False) -> Network:
    """The network with one more class, "outlier", before "no object"; new weights, the old ones are copied.

    Its row of the class predictor is the no-object row, and both biases are lowered by log 2: the probabilities of the
    inlier classes, and the sum of the two, stay what they were. `released`: a row of zeros, as in Open-set-M2F.
    """
    # NOTE: Open-set-M2F's row of zeros takes probability from every class at the start, more where logits are small
    names = [*network.config.id2label.values(), OUTLIER_NAME]  # pyright: ignore
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    with without_warnings():
        config = Mask2FormerConfig.from_dict({**network.config.to_dict(), **labels})
    tensors = dict(network.module.state_dict())
    for name, dim in (("class_predictor.weight", 2), ("class_predictor.bias", 1)):
        old = tensors[name].detach()
        known, nothing = old[:-1], old[-1:]
        if released:
            tensors[name] = torch.cat([known, torch.zeros_like(nothing), nothing])
        else:
            nothing = nothing - math.log(2) if dim == 1 else nothing
            tensors[name] = torch.cat([known, nothing, nothing])
    if "criterion.empty_weight" in tensors:
        old = tensors["criterion.empty_weight"]
        tensors["criterion.empty_weight"] = torch.cat([old[:-1], torch.ones_like(old[-1:]), old[-1:]])
    module = mask2former(config)
    load_weights(module, tensors, "the widened network")
    return replace(network, module=module.train(network.module.training), config=config, sha256="")


def settings_of(config: PreTrainedConfig) -> str:
    """A hash of all in a configuration that is not its class' default, but who wrote it and in which precision."""
    said = {k: v for k, v in config.to_diff_dict().items() if k not in WRITTEN}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def load_weights(module: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Copies every tensor into the module, as float32; names and shapes must agree exactly.

    Raises XenomaskError that names the first few disagreements, and for NaN or infinity.
    """
    own = module.state_dict()
    check_shapes(own, tensors, where, CONFIG)
    module.load_state_dict({k: as_type(v, own[k].dtype, k, where) for k, v in tensors.items()})
