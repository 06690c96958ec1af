"""What an evaluation comes to: one frozen result, which prints itself as the tables that `evaluate` prints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xenomask.metrics.counters import FrameCounters
from xenomask.metrics.resampling import LEVEL
from xenomask.metrics.table import NUMBERS, component_numbers, of_kind, pixel_numbers

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

CONVENTIONS = ("exact", "official")


@dataclass(frozen=True)
class Measured:
    """What is kept of each frame once its pixels were seen; every number and interval follows from it."""

    counters: Mapping[str, FrameCounters]
    # sums of the component metric at `threshold`; empty where no track was asked for
    tallies: Mapping[str, np.ndarray]
    track: str | None
    threshold: float
    # the tallies at the other thresholds that the official code would take in some order of the frames: mostly none
    by_order: Mapping[float, Mapping[str, np.ndarray]] = field(default_factory=dict)
    # confusion matrices of `openworld`; empty where no predicted classes were given
    confusions: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class EvalResult:
    """Numbers by convention ("exact": {"aupr_sum": ...}) and all that must be said beside them.

    Printed, it is the table of `xenomask evaluate`; in a notebook, too. `to_json()` is what `evaluate --json` writes.
    """

    numbers: Mapping[str, Mapping[str, float]]
    measured: Measured = field(repr=False, compare=False)
    # "exact" numbers of each frame that has an anomaly and an inlier
    per_frame: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    # 95 % bootstrap intervals over frames, by convention and number
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    # what the official code would print over all orders of the frames, where it depends on it
    order_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    # of the bootstrap
    resamples: int = 0
    seed: int = 0

    @property
    def frames(self) -> tuple[str, ...]:
        """The frames' ids, sorted."""
        return tuple(self.measured.counters)

    @property
    def track(self) -> str | None:
        """Whose component sizes were used: "anomaly", "obstacle" or None."""
        return self.measured.track

    def to_json(self) -> dict[str, Any]:
        """What `evaluate --json` writes and the report shows."""
        return {
            **{k: dict(v) for k, v in self.numbers.items()},
            "frames": len(self.frames),
            "track": self.track,
            "intervals": self.intervals,
            "official_order_range": self.order_range,
            "warnings": self.warnings,
            "bootstrap": {"resamples": self.resamples, "seed": self.seed, "level": LEVEL},
        }

    def tables(self) -> "list[RenderableType]":
        """The numbers as rich tables and lines: pixels, and components where a track was asked for."""
        from rich.table import Table
        from rich.text import Text

        table = Table("number", *CONVENTIONS)
        for n in (*pixel_numbers(), *(of_kind("classes") if self.measured.confusions else ())):
            table.add_row(n.label, *(self._cell(c, n.key) for c in CONVENTIONS))
        exact = self.numbers["exact"]
        pixels = f"{exact['pixels']:,} pixels, {100 * exact['prevalence']:.2f} % of them anomalous"
        parts: list[RenderableType] = [table, Text(f"{len(self.frames)} frames, {pixels}")]
        if components := self.numbers.get("components"):
            table = Table("number", f"official, {self.track} track", title="components", title_justify="left")
            for n in component_numbers():
                table.add_row(n.label, self._cell("components", n.key))
            counts = ", ".join(f"{k.upper()} {components[f'{k}_50']:.0f}" for k in ("tp", "fn", "fp"))
            threshold = self.numbers["official"]["best_f1_threshold"]
            parts += [table, Text(f"at tau .50: {counts}; mask: score > {threshold:.4f}")]
        if self.intervals:
            parts.append(
                Text(
                    f"(..): {100 * LEVEL:.0f} % bootstrap interval over frames, {self.resamples:,} resamples",
                    style="dim",
                )
            )
        for key, (low, high) in self.order_range.items():
            if key in NUMBERS and high - low > 5e-5:
                parts.append(
                    Text(
                        f"the official code prints {NUMBERS[key].label} between {low:.4f} and {high:.4f}, depending on "
                        "the order of frames; xenomask leaves its order-dependent first point out",
                        style="dim",
                    )
                )
        return parts

    def _cell(self, convention: str, key: str) -> "Text":
        from rich.text import Text

        found = Text(f"{self.numbers[convention][key]:.4f}")
        low, high = self.intervals.get(convention, {}).get(key, (np.nan, np.nan))
        return found if np.isnan(low) else found.append(f"  ({low:.3f} .. {high:.3f})", style="dim")

    def __str__(self) -> str:
        return self._printed(html=False)

    def _repr_html_(self) -> str:
        return self._printed(html=True)

    def _printed(self, html: bool) -> str:
        import io

        from rich.console import Console

        out = io.StringIO()
        console = Console(file=out, width=80, record=html, force_terminal=html)
        console.print(*self.tables(), *(f"warning: {w}" for w in self.warnings), sep="\n", highlight=False)
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>") if html else out.getvalue()
