"""Hugging Face folder -> Network; its keys of transformers 4 or 5.

Mask2Former, MaskFormer, OneFormer and EoMT; SegFormer and UPerNet, which classify pixels.
"""

import hashlib
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
    Mask2FormerForUniversalSegmentation,
    MaskFormerForInstanceSegmentation,
    OneFormerForUniversalSegmentation,
    SegformerForSemanticSegmentation,
    UperNetForSemanticSegmentation,
)
from transformers.utils import logging as hf_logging

from xenomask.errors import XenomaskError, first_line, unknown
from xenomask.files import sha256
from xenomask.models.config import CONFIG, read_config
from xenomask.models.deformable import use_kernel
from xenomask.models.hf_files import check_files, without_marks
from xenomask.models.network import WINDOWED, Network, settings_of
from xenomask.models.preprocess import Preprocess, check_preprocess
from xenomask.models.presets import without_warnings
from xenomask.models.processor import read_preprocess
from xenomask.models.weights import refuse, refuse_nan

log = logging.getLogger(__name__)

# What each architecture's weights files may lack without harm: parts that inference never reads.
HARMLESS = ("criterion.", "relative_position_index", "swin.layernorm.", "encoder.layernorm.", "text_encoder.",
            "text_mapper.", "prompt_ctx", "auxiliary_head.")  # fmt: skip
CLASSES: dict[str, Any] = {
    "mask2former": Mask2FormerForUniversalSegmentation,
    "maskformer": MaskFormerForInstanceSegmentation,
    "oneformer": OneFormerForUniversalSegmentation,
    "eomt": EomtForUniversalSegmentation,
    "eomt_dinov3": EomtDinov3ForUniversalSegmentation,
    "segformer": SegformerForSemanticSegmentation,
    "upernet": UperNetForSemanticSegmentation,
}
TASK = "the task is semantic"
EMPTY = -30.0  # a mask logit whose sigmoid is 1e-13


class WithTask(nn.Module):
    """A OneFormer whose task is fixed, so that it is called like the others."""

    def __init__(self, module: nn.Module, task_inputs: torch.Tensor):
        super().__init__()
        self.module = module
        self.register_buffer("task_inputs", task_inputs)

    def forward(self, pixel_values: torch.Tensor):
        """The wrapped network's outputs for the stored task."""
        tokens = self.get_buffer("task_inputs").expand(len(pixel_values), -1)
        return self.module(pixel_values=pixel_values, task_inputs=tokens)


@dataclass(frozen=True)
class Outputs:
    """What the other networks' outputs are read for."""

    class_queries_logits: torch.Tensor
    masks_queries_logits: torch.Tensor


class WithWindows(nn.Module):
    """An EoMT, whose position table fits one square size, on photos of that shortest edge: one look a window.

    The queries of all windows stand side by side, Q for each, in the order of the windows along the longer edge; a mask
    is empty outside its window.
    """

    # NOTE: the authors average the class maps of overlapping windows, which queries have no part in; here each pixel
    # belongs to the window whose middle is nearest, so that no pixel is claimed twice.

    def __init__(self, module: nn.Module, size: int, patch: int):
        super().__init__()
        self.module, self.size, self.patch = module, size, patch

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        """(B, windows x Q, N) class logits and (B, windows x Q, h, w) mask logits of a (B, 3, H, W) batch."""
        H, W = pixel_values.shape[-2:]
        if min(H, W) != self.size or max(H, W) % self.patch:
            raise XenomaskError(
                f"this EoMT looks at photos of shortest edge {self.size}, padded to multiples of {self.patch}; "
                f"this one is {W}x{H}"
            )
        along = -1 if W >= H else -2
        starts = window_starts(max(H, W), self.size, self.patch)
        looks = [self.module(pixel_values=pixel_values.narrow(along, s, self.size)) for s in starts]
        masks = [look.masks_queries_logits for look in looks]
        stride = self.size // masks[0].shape[-1]
        borders = window_borders(starts, self.size, max(H, W), stride)
        placed = []
        for mask, start, (a, b) in zip(masks, starts, borders, strict=True):
            shape = list(mask.shape)
            shape[along] = max(H, W) // stride
            whole = mask.new_full(shape, EMPTY)
            first = start // stride
            whole.narrow(along, a, b - a).copy_(mask.narrow(along, a - first, b - a))
            placed.append(whole)
        return Outputs(torch.cat([look.class_queries_logits for look in looks], 1), torch.cat(placed, 1))


def window_starts(length: int, size: int, patch: int) -> list[int]:
    """Where windows of a size begin that cover a length evenly; all are multiples of `patch`, as size and length are.

    >>> window_starts(2048, 1024, 16), window_starts(1824, 1024, 16), window_starts(640, 640, 16)
    ([0, 1024], [0, 800], [0])
    """
    n = -(-length // size)
    if n == 1:
        return [0]
    return [round(i * (length - size) / (n - 1) / patch) * patch for i in range(n)]


def window_borders(starts: list[int], size: int, length: int, stride: int) -> list[tuple[int, int]]:
    """The mask pixels (from, to) that each window owns: up to the middle of its overlaps.

    >>> window_borders([0, 800], 1024, 1824, 4)
    [(0, 228), (228, 456)]
    """
    middles = [(a + size + b) // 2 // stride for a, b in itertools.pairwise(starts)]
    ends = [0, *middles, length // stride]
    return list(itertools.pairwise(ends))


def load_hf(folder: Path, device: str = "cpu") -> Network:
    """Reads a folder as `save_pretrained` or the Hub lays it out; nothing is downloaded and no code of it is run.

    Raises XenomaskError for another kind of network, missing or foreign tensors, and damaged files.
    """
    config = _read_config(folder)
    module = _load_module(folder, config)
    if config.model_type == "oneformer":
        module = WithTask(module, _task_tokens(folder, config))
    preprocess, note = _preprocess(folder, config)
    if config.model_type in WINDOWED:
        module = WithWindows(module, config.image_size, config.patch_size)
    if note:
        log.warning("%s: %s", folder, note)
    facts = {"source": str(folder), "architecture": config.model_type, **({"preprocess_note": note} if note else {})}
    module = module.to(memory_format=torch.channels_last).to(device).eval()  # pyright: ignore
    return Network(module, config, preprocess, _weights_hash(folder), facts)


def identity(folder: Path) -> tuple[str, str, Preprocess]:
    """A network's `sha256`, `settings` and `preprocess`, as `load_hf` has them; nothing is loaded.

    Raises XenomaskError for a config or a processor that `load_hf` refuses.
    """
    config = _read_config(folder)
    return _weights_hash(folder), settings_of(config), _preprocess(folder, config)[0]


def _preprocess(folder: Path, config) -> tuple[Preprocess, str | None]:
    """How photos enter the network, and a note where the folder does not say it."""
    preprocess, note = read_preprocess(folder, config.model_type)
    if config.model_type in WINDOWED:
        if type(config.image_size) is not int or type(config.patch_size) is not int:
            raise XenomaskError(f"{folder / CONFIG} has an image_size or a patch_size that is no whole number")
        preprocess = _windowed(folder, preprocess, config.image_size, config.patch_size)
    try:
        check_preprocess(preprocess)
    except (ValueError, TypeError) as e:
        raise XenomaskError(f"the preprocessing in {folder} is damaged: {first_line(e)}") from e
    return preprocess, note


def _read_config(folder: Path):
    if not (folder / CONFIG).is_file():
        raise XenomaskError(f"{folder} is no Hugging Face folder: it has no {CONFIG}")
    stored = read_config(folder)
    kind = str(stored.get("model_type"))
    if kind not in CLASSES:
        raise unknown(f"kind of network in {folder / CONFIG}", kind, CLASSES)
    try:
        with without_warnings():
            # NOTE: not from_pretrained, which would read the file again, with what it asks of the Hub
            config = CLASSES[kind].config_class.from_dict(stored)
    except Exception as e:  # the checks of its many configurations raise whatever they like
        raise XenomaskError(f"{folder / CONFIG} cannot be read: {first_line(e)}") from e
    if kind == "upernet":  # its second head is for training
        config.use_auxiliary_head = False
    return config


@contextmanager
def _without_bar() -> Iterator[None]:
    """Hides transformers' progress bar while it is open."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def _load_module(folder: Path, config) -> nn.Module:
    names = check_files(folder, CLASSES[config.model_type], config)
    try:
        with without_warnings(), _without_bar(), without_marks(folder) as readable:
            module, report = CLASSES[config.model_type].from_pretrained(
                readable, config=config, local_files_only=True, output_loading_info=True, dtype=torch.float32,
                ignore_mismatched_sizes=True, weights_only=True,
                **({"key_mapping": names} if names else {}),
            )  # fmt: skip
    except (
        Exception
    ) as e:  # transformers raises whatever its readers do: OSError, SafetensorError, UnpicklingError, ...
        raise XenomaskError(f"the weights in {folder} cannot be read: {first_line(e)}") from e
    kinds = (report["missing_keys"], report["unexpected_keys"],
             [k[0] if isinstance(k, tuple) else k for k in report["mismatched_keys"]])  # fmt: skip
    real = [[k for k in keys if not any(h in k for h in HARMLESS)] for keys in kinds]
    refuse(f"the weights in {folder} are not those of its {CONFIG}", *real)
    for name, t in module.state_dict().items():
        refuse_nan(t, name, f"the weights in {folder}")
    return use_kernel(module)


def _task_tokens(folder: Path, config) -> torch.Tensor:
    """(1, length) token ids of OneFormer's task sentence, by the tokenizer that lies in the folder."""
    from transformers import CLIPTokenizer

    files = [folder / "vocab.json", folder / "merges.txt"]
    if not (folder / "tokenizer.json").is_file() and not all(f.is_file() for f in files):
        raise XenomaskError(
            f"a OneFormer needs its tokenizer (tokenizer.json, or vocab.json and merges.txt) in {folder}, to say its "
            "task to it; the Hub has it beside the weights"
        )
    try:
        with without_marks(folder) as readable:
            tokenizer = CLIPTokenizer.from_pretrained(readable, local_files_only=True)
        found = tokenizer(TASK, padding="max_length", max_length=config.task_seq_len, truncation=True,
                          return_tensors="pt")  # fmt: skip
    except Exception as e:  # whatever the tokenizers' reader makes of a damaged file
        raise XenomaskError(f"the tokenizer in {folder} cannot be read: {first_line(e)}") from e
    # as transformers' OneFormerProcessor: padding is 0, whatever the tokenizer's own padding token
    return found["input_ids"] * found["attention_mask"]


def _windowed(folder: Path, p: Preprocess, size: int, patch: int) -> Preprocess:
    """The preprocessing of an EoMT, whose position table is for photos of that size."""
    if p.policy == "shortest":  # no processor's file
        return replace(p, size=size, longest=16 * size, divisor=patch)
    if p.policy == "fixed" and (p.size, p.longest) == (size, size):
        return p
    if p.size != size or p.policy == "fixed":
        raise XenomaskError(f"the processor in {folder} resizes photos to {p.size}, its network takes {size}")
    return p if p.black else replace(p, divisor=patch)


def _weights_hash(folder: Path) -> str:
    """One hash for all weights files: that of the file, or, of several, of their hashes."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    hashes = [sha256(f) for f in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
