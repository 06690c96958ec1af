"""Frames -> training batches: image j of step i depends on (seed, i, j) alone.

So a resumed run sees what it would have seen, and so do several processes that share a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from xenomask.datasets import Dataset
from xenomask.errors import XenomaskError, first_line
from xenomask.models import Preprocess
from xenomask.train.augment import augment
from xenomask.train.config import Augment, Distill
from xenomask.train.cutouts import Cutout
from xenomask.train.distill import soft_target
from xenomask.train.paste import paste
from xenomask.types import OUTLIER, VOID

MOST_TRIES = 20  # frames that are tried for an example with a labelled pixel


class Batch(TypedDict):
    """One process' share of a step's images."""

    pixel_values: Tensor  # (B, 3, h, w), normalised
    labels: Tensor  # (B, h, w) uint8, class numbers, void, or a pasted object's OUTLIER
    places: list[int]  # of these images in the step's whole batch
    ids: list[str]  # of their frames
    soft: NotRequired[Tensor]  # (B, h, w) float32 in [0, 1], NaN where there is no photo; a teacher's maps


class Example(NamedTuple):
    """One of a batch's images, without the batch's dimension."""

    image: Tensor
    label: Tensor
    id: str
    soft: Tensor | None


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
    distill: Distill | None = None

    def __getitem__(self, step: int) -> Batch:
        frames = indices(self.seed, step, self.batch, len(self.data.frames))
        places = range(self.rank, self.batch, self.world)
        found = [self._example(frames[j], np.random.default_rng([self.seed, step, j])) for j in places]
        batch: Batch = {
            "pixel_values": torch.stack([e.image for e in found]),
            "labels": torch.stack([e.label for e in found]),
            "places": list(places),
            "ids": [e.id for e in found],
        }
        return {**batch, "soft": torch.stack([e.soft for e in found if e.soft is not None])} if self.distill else batch

    def _example(self, index: int, rng: np.random.Generator) -> Example:
        """A crop of that frame, or, where it holds nothing but void, of others until one holds more."""
        # NOTE: MMSegmentation trains on such a crop: all queries then learn that nothing is there
        for _ in range(MOST_TRIES):
            found = self._crop(index, rng)
            if (found.label < OUTLIER).any():
                return found
            index = int(rng.integers(len(self.data.frames)))
        raise XenomaskError(
            f"{self.data.name}: {MOST_TRIES} crops in a row hold no labelled pixel (all void, {VOID}): raise "
            "augment.crop, or leave frames with so few labels out"
        )

    def _crop(self, index: int, rng: np.random.Generator) -> Example:
        frame = self.data.frames[index]
        sample = self.data.sample(frame)
        assert sample.label is not None
        soft = None if self.distill is None else soft_target(self.distill, frame, sample.label)
        if self.cutouts and rng.random() < self.augment.paste_share:
            sample = paste(sample, self.cutouts, int(rng.integers(2**31)), self.augment)
        assert sample.label is not None
        if soft is not None:
            soft[sample.label == OUTLIER] = 1  # known, whatever the teacher says
        image, label, soft = augment(sample.image, sample.label, self.augment, rng, soft)
        mean, std = (np.array(v, np.float32) for v in (self.preprocess.mean, self.preprocess.std))
        x = (image.astype(np.float32) - mean) / std
        x = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))
        return Example(x, torch.from_numpy(label), sample.id, None if soft is None else torch.from_numpy(soft))


def check_labelled(data: Dataset) -> None:
    """Raises XenomaskError for a data set without a single labelled pixel; reads labels until it finds one."""
    if not any((data.label(frame) < OUTLIER).any() for frame in data.frames):
        raise XenomaskError(
            f"no label of {data.name} at {data.root} ({len(data.frames)} frames) holds a class: all pixels are void "
            f"({VOID}), so there is nothing to learn; is the label map the one of these labels?"
        )


@dataclass(frozen=True)
class _Carried(torch.utils.data.Dataset):
    """The batches, or the text of a XenomaskError: raised in a worker it would arrive with the worker's traceback."""

    source: Batches

    def __getitem__(self, step: int) -> Batch | str:
        try:
            return self.source[step]
        except XenomaskError as e:
            return str(e)


def batches_from(source: Batches, steps: Sequence[int], workers: int) -> Iterator[Batch]:
    """The batches of these steps, prepared in `workers` processes (0: in this one).

    Raises XenomaskError as reading a frame does, and where a worker was ended by the system.
    """
    loaded = iter(DataLoader(_Carried(source), batch_size=None, sampler=steps, num_workers=workers))  # pyright: ignore
    return _raised(loaded)


def _raised(loaded: Iterator[Batch | str]) -> Iterator[Batch]:
    try:
        for found in loaded:
            if isinstance(found, str):
                raise XenomaskError(found)
            yield found
    except RuntimeError as e:  # of torch's DataLoader
        if "DataLoader worker" not in str(e):
            raise
        raise XenomaskError(f"{first_line(e)}; if memory did not suffice, lower workers or augment.crop") from e


def parts(batch: Batch, n: int) -> list[Batch]:
    """The batch cut into n of equal size, for gradient accumulation."""
    size = len(batch["ids"]) // n
    cuts = [slice(i * size, (i + 1) * size) for i in range(n)]
    return [Batch(**{k: v[c] for k, v in batch.items()}) for c in cuts]  # pyright: ignore
