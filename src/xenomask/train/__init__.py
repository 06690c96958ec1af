"""train: recipe -> checkpoint."""

from xenomask.train.config import TrainConfig as TrainConfig
from xenomask.train.config import read_config as read_config
from xenomask.train.loop import train as train
