"""datasets: disk -> Sample."""

from xenomask.datasets.layout import LAYOUTS as LAYOUTS
from xenomask.datasets.layout import Dataset as Dataset
from xenomask.datasets.layout import Frame as Frame
from xenomask.datasets.layout import open_dataset as open_dataset
from xenomask.datasets.read import read_label as read_label
from xenomask.datasets.read import read_photo as read_photo
