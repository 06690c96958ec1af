"""The smallest recipe: the tiny preset on synthetic scenes."""

from xenomask.train import TrainConfig
from xenomask.train.config import Augment, Data, Optim


def recipe(scenes, work_dir, **changes) -> TrainConfig:
    return TrainConfig(
        preset="tiny",
        work_dir=work_dir,
        seed=3,
        save_every=2,
        val_every=4,
        threads=1,
        data=Data(dataset="folder", train=scenes, val=scenes, val_frames=2),
        augment=Augment(short_edge=(48, 64, 80), crop=(32, 64)),
        optim=Optim(iterations=6, batch=2, warmup=2),
    ).model_copy(update=changes)


TOML = """
preset = "tiny"
work_dir = "{work}"
seed = 3
save_every = 1
val_every = 100
threads = 1
[data]
dataset = "folder"
train = "{scenes}"
[augment]
short_edge = [48, 64, 80]
crop = [32, 64]
[optim]
iterations = 12
batch = 2
"""
