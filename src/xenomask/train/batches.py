"""Frames -> training batches: batch i depends on (seed, i) alone, so a resumed run sees what it would have seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from xenomask.datasets import Dataset
from xenomask.models import Preprocess
from xenomask.train.config import Augment
from xenomask.train.paste import paste
from xenomask.types import VOID


class Batch(TypedDict):
    """What a step trains on."""

    pixel_values: Tensor  # (B, 3, h, w), normalised
    labels: Tensor  # (B, h, w) uint8, class numbers or void


TRIES = 10  # crops drawn before one without any labelled pixel is accepted


def step_seed(seed: int, step: int, stream: int) -> int:
    """A seed of 63 bits for one step; streams 0 (batch), 1 (network and loss) are independent."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(2, np.uint32).view(np.uint64)[0] >> 1)


def augmentation(a: Augment) -> v2.Compose:
    """Random scale, crop, flip and photometric jitter, from torchvision."""
    p = a.photometric
    return v2.Compose([
        v2.RandomResize(a.short_edge[0], a.short_edge[1], antialias=True),
        v2.RandomCrop(a.crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: VOID}),
        v2.RandomHorizontalFlip(a.flip),
        v2.RandomPhotometricDistort(p=p),
    ])  # fmt: skip


def indices(seed: int, step: int, batch: int, frames: int) -> list[int]:
    """The frames of a batch: each epoch is a fresh permutation, batches run across its end."""
    out = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, frames)
        order = np.random.default_rng([seed, epoch]).permutation(frames)
        out.append(int(order[place]))
    return out


@dataclass(frozen=True)
class Batches(torch.utils.data.Dataset):
    """Map-style: `batches[step]` is the whole batch of that step."""

    data: Dataset
    augment: Augment
    preprocess: Preprocess
    batch: int
    seed: int
    cutouts: tuple[Path, ...] = ()

    def __getitem__(self, step: int) -> Batch:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(self.seed, step, 0))
            transform = augmentation(self.augment)
            pairs = [self._example(i, transform) for i in indices(self.seed, step, self.batch, len(self.data.frames))]
        return {"pixel_values": torch.stack([x for x, _ in pairs]), "labels": torch.stack([y for _, y in pairs])}

    def _example(self, index: int, transform: v2.Compose) -> tuple[Tensor, Tensor]:
        sample = self.data.sample(self.data.frames[index])
        if self.cutouts and torch.rand(()) < self.augment.paste_share:
            sample = paste(sample, self.cutouts, int(torch.randint(2**31, ())))
        image = tv_tensors.Image(torch.from_numpy(sample.image).permute(2, 0, 1))
        mask = tv_tensors.Mask(torch.from_numpy(sample.label))
        x, label = image, mask
        for _ in range(TRIES):
            x, label = transform(image, mask)
            if (label != VOID).any():
                break
        mean = torch.tensor(self.preprocess.mean)[:, None, None]
        std = torch.tensor(self.preprocess.std)[:, None, None]
        return (x.as_subclass(Tensor).float() - mean) / std, label.as_subclass(Tensor)


def batches_from(source: Batches, start: int, stop: int, workers: int) -> Iterator[Batch]:
    """The batches of steps start, ..., stop - 1, prepared in `workers` processes (0: in this one)."""
    steps = list(range(start, stop))
    return iter(DataLoader(source, batch_size=None, sampler=steps, num_workers=workers))  # pyright: ignore
