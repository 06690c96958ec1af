"""The one protocol of what predicts: a Detector, an exported file, a quantised folder."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from xenomask.arrays import ImageLike
from xenomask.types import ScoreMap

if TYPE_CHECKING:
    from xenomask.detector.detector import Detector
    from xenomask.detector.member import Member
    from xenomask.detector.nearest import Nearest
    from xenomask.objects.ignore import IgnoreRegion


@runtime_checkable
class Predictor(Protocol):
    """Photo in, anomaly map out; `prepare`, `infer` and `fuse` are the three parts of `detect`, for pipelines."""

    @property
    def name(self) -> str: ...

    @property
    def score_name(self) -> str:
        """The score that its maps are named by."""
        ...

    @property
    def scale(self) -> tuple[float, float]:
        """The fixed range in which its maps are displayed."""
        ...

    @property
    def thresholds(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def ignore(self) -> "IgnoreRegion | None":
        """The part of every photo that belongs to no object."""
        ...

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of its members' networks."""
        ...

    @property
    def members(self) -> "tuple[Member, ...]":
        """Those whose networks are run here; none of an exported file, which is one graph."""
        ...

    @property
    def reads(self) -> frozenset[str]:
        """The parts of query sets that its scores read."""
        ...

    @property
    def chosen_on(self) -> frozenset[str]:
        """The data sets on which its outlier queries were chosen."""
        ...

    @property
    def runtime(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def largest_batch(self) -> int | None:
        """How many photos go through it together at most; None: any number."""
        ...

    def detect(self, image: ImageLike) -> ScoreMap:
        """Return the anomaly map of one RGB image, at its size."""
        ...

    def __call__(self, photos: Any) -> Any:
        """Return the Prediction of a photo, or a list of them of a list of photos."""
        ...

    def prepare(self, image: ImageLike) -> Any:
        """Preprocess one photo."""
        ...

    def infer(self, photos: Sequence[Any]) -> Sequence[Any]:
        """Return the outputs for preprocessed photos of one input size, in one batch."""
        ...

    def fuse(self, outputs: Any) -> ScoreMap:
        """Return the map of one photo's outputs."""
        ...

    def nearest(self, outputs: Any) -> "Nearest | None":
        """Return the function that names the class of a mask of the photo; None where the networks are not seen."""
        ...

    def classes(self, outputs: Any) -> Any:
        """Return the photo's predicted classes (H, W); raises XenomaskError where the networks are not seen."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what decides its maps, ready for JSON."""
        ...

    def opened(self, what: str) -> "Detector":
        """Return the detector whose `what` (score, member, tta, refine, queries) can be changed.

        Raises XenomaskError where that is part of a graph, and says what to do.
        """
        ...
