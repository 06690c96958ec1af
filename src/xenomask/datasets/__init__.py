"""datasets: disk -> Sample."""

from typing import TYPE_CHECKING

from xenomask.datasets.codings import CODINGS as CODINGS
from xenomask.datasets.layout import Dataset as Dataset
from xenomask.datasets.layout import Entry as Entry
from xenomask.datasets.layout import Frame as Frame
from xenomask.datasets.read import read_label as read_label
from xenomask.datasets.read import read_photo as read_photo
from xenomask.later import later

if TYPE_CHECKING:  # a photo is read without the list of all data sets
    from xenomask.datasets.catalogue import DATASETS as DATASETS
    from xenomask.datasets.catalogue import open_dataset as open_dataset

__getattr__, __dir__ = later(__name__, {"DATASETS": "catalogue", "open_dataset": "catalogue"})
