"""objects: ScoreMap -> anomalous objects."""

from xenomask.objects.ignore import IgnoreRegion as IgnoreRegion
from xenomask.objects.ignore import ignored_in as ignored_in
from xenomask.objects.objects import SMALLEST as SMALLEST
from xenomask.objects.objects import AnomalyObject as AnomalyObject
from xenomask.objects.objects import find_objects as find_objects
from xenomask.objects.objects import smallest_area as smallest_area
from xenomask.objects.objects import write_coco as write_coco
from xenomask.objects.words import HEAD as HEAD
from xenomask.objects.words import MOST as MOST
from xenomask.objects.words import cells as cells
from xenomask.objects.words import sentence as sentence
