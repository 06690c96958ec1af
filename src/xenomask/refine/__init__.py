"""refine: a map -> a better map, without training: by a network's own masks, given segments, or given boxes."""

from xenomask.refine import attenuation as _attenuation  # noqa: F401  they register themselves
from xenomask.refine import boxes as _boxes  # noqa: F401
from xenomask.refine import pooling as _pooling  # noqa: F401
from xenomask.refine import regions as _regions  # noqa: F401
from xenomask.refine.definition import REFINEMENTS as REFINEMENTS
from xenomask.refine.definition import Refinement as Refinement
from xenomask.refine.definition import Seen as Seen
from xenomask.refine.definition import check_names as check_names
from xenomask.refine.definition import get_refinement as get_refinement
from xenomask.refine.definition import parse_refinement as parse_refinement
from xenomask.refine.definition import register as register
