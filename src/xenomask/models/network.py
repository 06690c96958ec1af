"""Network: image -> MaskOutput, and its folder on disk.

A checkpoint is a folder that transformers can load too: `config.json` and `model.safetensors` as Hugging Face
writes them, and `xenomask.json` with the preprocessing, the preset and the training's facts.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, PreTrainedConfig

from xenomask.errors import XenomaskError, unknown
from xenomask.files import atomic, make_dir, sha256
from xenomask.masks import MaskOutput
from xenomask.models.levels import one_level
from xenomask.models.preprocess import Preprocess, network_input
from xenomask.models.presets import preset, without_warnings

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "xenomask.json"


@dataclass(frozen=True)
class Network:
    """A mask transformer ready to look at photos; `facts` go into its xenomask.json as they are."""

    module: nn.Module
    config: PreTrainedConfig
    preprocess: Preprocess
    sha256: str = ""  # of the weights file; "" for a network that was never saved
    facts: Mapping[str, Any] = field(default_factory=dict)
    # batch -> (class logits, mask logits) by another runtime than eager torch (xenomask.models.runtimes)
    run: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    @torch.inference_mode()
    def __call__(self, x: Float[Tensor, "b 3 ph pw"]) -> tuple[Float32[Tensor, "b q n"], Float32[Tensor, "b q h w"]]:
        """(class logits, mask logits) of a batch that is normalised, and padded if need be, already."""
        if self.run is not None:
            return self.run(x)
        device = next(self.module.parameters()).device
        out = self.module(pixel_values=x.to(device, torch.float32, memory_format=torch.channels_last))
        return out.class_queries_logits.float(), out.masks_queries_logits.float()

    def predict(
        self, image: UInt8[np.ndarray, "H W 3"], size_policy: Literal["stored", "native"] = "stored"
    ) -> MaskOutput:
        """Looks at one RGB photo of any size, resized as the checkpoint says ("stored") or not at all ("native").

        Either way it is normalised and then padded, right and bottom, to the checkpoint's divisor.
        """
        if size_policy not in ("stored", "native"):
            raise unknown("size policy", size_policy, ("stored", "native"))
        policy = replace(self.preprocess, policy="none") if size_policy == "native" else self.preprocess
        x, input_size = network_input(policy, image)
        class_logits, mask_logits = self(x)
        return MaskOutput(
            class_logits=class_logits[0],
            mask_logits=mask_logits[0],
            padded_size=(x.shape[2], x.shape[3]),
            input_size=input_size,
            image_size=(image.shape[0], image.shape[1]),
        )

    def save(self, folder: Path, *, half: bool = False) -> Path:
        """Writes the checkpoint folder, whole or not at all; `half` stores the weights as float16.

        Raises XenomaskError for other architectures than Mask2Former, whose Hugging Face folders are used as they are.
        """
        if not list(self.module.parameters()):
            raise XenomaskError("a network of an exported file has no weights of its own to write: take its folder")
        if self.config.model_type != "mask2former":
            raise XenomaskError(f"a {self.config.model_type} is not written anew: use its own folder as it is")
        make_dir(folder.parent)
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.module.state_dict().items()}
        if half:
            tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        card = {"preprocess": asdict(self.preprocess), **self.facts}
        with atomic(folder) as part:
            part.mkdir()
            # NOTE: not save_file, whose error on a full disk is no OSError
            (part / WEIGHTS).write_bytes(serialised(tensors, metadata={"format": "pt"}))
            (part / CONFIG).write_text(json.dumps(self.config.to_dict(), indent=1) + "\n")
            (part / CARD).write_text(json.dumps(card, indent=1) + "\n")
        return folder


def _module(config: Mask2FormerConfig) -> nn.Module:
    with without_warnings():
        module = Mask2FormerForUniversalSegmentation(config)
    if min(config.feature_strides[1:]) == 32:  # RbA: the pixel decoder attends on stride 32 only
        one_level(module)
    return module.to(memory_format=torch.channels_last)  # pyright: ignore


def build(name: str) -> Network:
    """A network of that preset with random weights (from torch's global generator)."""
    p = preset(name)
    return Network(_module(p.config).eval(), p.config, p.preprocess, facts={"preset": name})


def load(folder: Path, device: str = "cpu") -> Network:
    """Reads a checkpoint folder that `Network.save` or `xenomask train` wrote, or one in Hugging Face's layout.

    Raises XenomaskError for a missing or damaged file and for weights of another architecture.
    """
    if (folder / CONFIG).is_file() and not (folder / CARD).is_file():
        from xenomask.models.hf import load_hf  # it builds Networks itself

        return load_hf(folder, device)
    for name in (CONFIG, WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise XenomaskError(f"{folder} is no checkpoint folder: it has no {name}")
    try:
        with without_warnings():
            config = Mask2FormerConfig.from_dict(json.loads((folder / CONFIG).read_text()))
        card = json.loads((folder / CARD).read_text())
        stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card.pop("preprocess").items()}
        p = Preprocess(**stored)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise XenomaskError(f"checkpoint {folder} has a damaged {CONFIG} or {CARD}: {e}") from e
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as e:
        raise XenomaskError(f"{folder / WEIGHTS} is damaged or no safetensors file: {e}") from e
    module = _module(config)
    load_weights(module, tensors, str(folder / WEIGHTS))
    return Network(module.to(device).eval(), config, p, sha256(folder / WEIGHTS), card)


def load_weights(module: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Copies every tensor into the module, as float32; names and shapes must agree exactly.

    Raises XenomaskError that names the first few disagreements.
    """
    own = module.state_dict()
    missing, extra = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    shapes = [k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape]
    if missing or extra or shapes:
        parts = []
        for what, keys in (("lacks", missing), ("does not know", extra), ("has other shapes for", shapes)):
            if keys:
                some = ", ".join(sorted(keys)[:3])
                parts.append(f"{what} {len(keys)} tensors ({some}{', ...' if len(keys) > 3 else ''})")
        raise XenomaskError(f"{where} is of another architecture than its {CONFIG}: it {'; '.join(parts)}")
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()})
