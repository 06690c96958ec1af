"""Frames -> training batches: image j of step i depends on (seed, i, j) alone.

So a resumed run sees what it would have seen, and so do several processes that share a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from xenomask.datasets import Dataset
from xenomask.models import Preprocess
from xenomask.train.augment import augment
from xenomask.train.config import Augment
from xenomask.train.cutouts import Cutout
from xenomask.train.paste import paste


class Batch(TypedDict):
    """One process' share of a step's images."""

    pixel_values: Tensor  # (B, 3, h, w), normalised
    labels: Tensor  # (B, h, w) uint8, class numbers, void, or a pasted object's OUTLIER
    places: list[int]  # of these images in the step's whole batch
    ids: list[str]  # of their frames


def step_seed(seed: int, step: int, stream: int) -> int:
    """A seed of 63 bits for one step; its streams are independent."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(2, np.uint32).view(np.uint64)[0] >> 1)


def indices(seed: int, step: int, batch: int, frames: int) -> list[int]:
    """The frames of a step: each epoch is a fresh permutation, batches run across its end."""
    out = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, frames)
        order = np.random.default_rng([seed, epoch]).permutation(frames)
        out.append(int(order[place]))
    return out


@dataclass(frozen=True)
class Batches(torch.utils.data.Dataset):
    """Map-style: `batches[step]` is this process' share of that step: images rank, rank + world, ..."""

    data: Dataset
    augment: Augment
    preprocess: Preprocess
    batch: int  # images a step, over all processes
    seed: int
    cutouts: tuple[Cutout, ...] = ()
    rank: int = 0
    world: int = 1

    def __getitem__(self, step: int) -> Batch:
        frames = indices(self.seed, step, self.batch, len(self.data.frames))
        places = range(self.rank, self.batch, self.world)
        pairs = [self._example(frames[j], np.random.default_rng([self.seed, step, j])) for j in places]
        return {
            "pixel_values": torch.stack([x for x, _ in pairs]),
            "labels": torch.stack([y for _, y in pairs]),
            "places": list(places),
            "ids": [self.data.frames[frames[j]].id for j in places],
        }

    def _example(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        sample = self.data.sample(self.data.frames[index])
        if self.cutouts and rng.random() < self.augment.paste_share:
            sample = paste(sample, self.cutouts, int(rng.integers(2**31)), self.augment)
        assert sample.label is not None
        image, label = augment(sample.image, sample.label, self.augment, rng)
        mean, std = (np.array(v, np.float32) for v in (self.preprocess.mean, self.preprocess.std))
        x = (image.astype(np.float32) - mean) / std
        return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))), torch.from_numpy(label)


def batches_from(source: Batches, steps: Sequence[int], workers: int) -> Iterator[Batch]:
    """The batches of these steps, prepared in `workers` processes (0: in this one)."""
    return iter(DataLoader(source, batch_size=None, sampler=steps, num_workers=workers))  # pyright: ignore


def parts(batch: Batch, n: int) -> list[Batch]:
    """The batch cut into n of equal size, for gradient accumulation."""
    size = len(batch["ids"]) // n
    cuts = [slice(i * size, (i + 1) * size) for i in range(n)]
    return [Batch(**{k: v[c] for k, v in batch.items()}) for c in cuts]  # pyright: ignore
