"""What a refinement is: a map, and what else is known of its photo -> a better map, without any training."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from xenomask.arrays import MapLike, as_single, check_same_size
from xenomask.errors import XenomaskError, refuse_taken, unknown
from xenomask.masks import MaskOutput, in_arrays
from xenomask.shapes import Float32

Value = Float32[np.ndarray, "H W"]


@dataclass(frozen=True)
class Seen:
    """What a refinement inside a detector may read: a network's output, its classes' names, the map's lower end."""

    output: MaskOutput
    names: tuple[str, ...]
    low: float


@dataclass(frozen=True)
class Refinement:
    """A named way to change a map by what it `needs`; `function(value, given, **options)` returns the new map (H, W).

    `given` is a `Seen` ("masks": inside a detector), segment ids (H, W) ("segments"), or boxes (n, 5) ("boxes"). Each
    option of the function is a number; `limits` holds the range of each. `on_tensors`: the function computes the same
    of tensors, the map's and the output's, in operators that an exported graph can hold.
    """

    name: str
    formula: str
    function: Callable[..., Value]
    needs: Literal["masks", "segments", "boxes"]
    limits: Mapping[str, tuple[float, float]]
    options: Mapping[str, float] = field(default_factory=dict)
    on_tensors: bool = False

    @property
    def defaults(self) -> dict[str, float]:
        """All options and the values that they have where none is given."""
        parameters = inspect.signature(self.function).parameters
        return {k: float(parameters[k].default) for k in self.limits}

    def __call__(self, value: MapLike, given: Any) -> Value:
        """Return the refined map; raises XenomaskError for what is no finite map, and where the sizes differ."""
        value = as_single(value)
        if isinstance(given, Seen):
            check_same_size("map", value, "photo", np.empty(given.output.image_size, bool))
            given = replace(given, output=in_arrays(given.output))
        return as_single(self.of(value, given))

    def of(self, value: Any, given: Any) -> Any:
        """Return what the function makes of it by the options, unchecked: of a graph's tensors, too."""
        return self.function(value, given, **{**self.defaults, **self.options})

    def table(self) -> dict[str, Any]:
        """What a detector folder and a manifest hold of it: its name and all its options."""
        return {"name": self.name, "options": {**self.defaults, **self.options}}


REFINEMENTS: dict[str, Refinement] = {}  # filled by the modules that define them, and by whoever adds one


def register(refinement: Refinement) -> Refinement:
    """Make a refinement known by its name to every command; returns it.

    Raises XenomaskError for a name that is taken.
    """
    refuse_taken("refinement", refinement.name, REFINEMENTS)
    REFINEMENTS[refinement.name] = refinement
    return refinement


def get_refinement(name: str, options: Mapping[str, float] | None = None) -> Refinement:
    """Return the refinement of that name, its options replaced where given.

    Raises XenomaskError for unknown names and options, and for values out of their range.

    >>> get_refinement("pooling", {"up": 2.0})
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: refinement pooling: up = 2.0 is not in 0..1
    """
    if name not in REFINEMENTS:
        raise unknown("refinement", name, REFINEMENTS)
    found = REFINEMENTS[name]
    for key, value in (options or {}).items():
        if key not in found.limits:
            raise unknown(f"option of refinement {name}", key, found.limits)
        low, high = found.limits[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise XenomaskError(f"refinement {name}: {key} = {value} is not in {low:g}..{high:g}")
    return replace(found, options={k: float(v) for k, v in (options or {}).items()})


def parse_refinement(text: str, needs: str = "masks") -> Refinement:
    """'pooling:up=.5,down=.3' -> the refinement with these options.

    Raises XenomaskError as `get_refinement` does, and for one that needs something else than asked for.

    >>> parse_refinement("pooling:down=.3").table()["options"]
    {'up': 0.5, 'down': 0.3}
    """
    name, _, rest = text.strip().partition(":")
    pairs = [p.partition("=") for p in rest.split(",") if p.strip()]
    options = {}
    for key, _, value in pairs:
        if key.strip() in options:
            raise XenomaskError(f"--refine {text}: {key.strip()} is given twice")
        try:
            options[key.strip()] = float(value)
        except ValueError:
            raise XenomaskError(f"--refine {text}: write NAME:OPTION=NUMBER,... such as pooling:up=.5") from None
    if bad := [k for k, v in options.items() if not math.isfinite(v)]:
        raise XenomaskError(f"--refine {text}: {bad[0]} is not finite")
    if "," in name:
        raise XenomaskError(f"--refine {text}: name one, and give --refine again for the next")
    if name.strip() not in REFINEMENTS:
        raise unknown("refinement", name.strip(), [k for k, r in REFINEMENTS.items() if r.needs == needs])
    found = get_refinement(name.strip(), options)
    if found.needs != needs:
        own = "no detector has: see `xenomask refine`" if needs == "masks" else "is part of a detector: see --refine"
        raise XenomaskError(f"refinement {name} needs {found.needs}, which {own}")
    return found


def check_names(given: Sequence[str]) -> None:
    """Raises XenomaskError, before anything is loaded, for what --refine cannot be: "none" stands alone."""
    if "none" in given and len(given) > 1:
        raise XenomaskError("--refine none leaves out the detector's refinements: name no others beside it")
    for text in given:
        if text != "none":
            parse_refinement(text)
