"""Test-time augmentation (TTA): views of one photo at other sizes, and its mirror image, whose maps are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xenomask.errors import XenomaskError, unknown
from xenomask.models.preprocess import LARGEST, Preprocess

MIRROR = "mirror"
EDGES = (32, 4096)  # pixels: below, a network's deepest level has no cell; above, no memory holds one photo's levels


@dataclass(frozen=True)
class View:
    """How a photo is shown to a network: at a shortest edge in pixels (None: the network's own), mirrored or not."""

    edge: int | None = None
    mirror: bool = False

    def __str__(self) -> str:
        """Its name; "" for the plain view.

        >>> str(View(288, True)), str(View())
        ('288+mirror', '')
        """
        return "+".join([*([str(self.edge)] if self.edge else []), *([MIRROR] if self.mirror else [])])


def parse_tta(text: str) -> tuple[tuple[int, ...], bool]:
    """The shortest edges in "mirror,288,384", and whether each is mirrored too.

    Raises XenomaskError for other words, a word given twice, and edges that `tta_views` refuses.

    >>> parse_tta("mirror,288,384"), parse_tta("mirror")
    (((288, 384), True), ((), True))
    """
    words = [w.strip() for w in text.split(",")]
    if twice := sorted({w for w in words if words.count(w) > 1}):
        raise XenomaskError(f"--tta {text!r} name {twice[0]!r} twice: once is enough")
    for w in words:
        if w != MIRROR and not (w.isascii() and w.isdecimal() and len(w) < 10):
            raise unknown("view for --tta", w, (MIRROR, "shortest edges in pixels, such as 288,384"))
    edges, mirror = tuple(int(w) for w in words if w != MIRROR), MIRROR in words
    tta_views(edges, mirror)
    return edges, mirror


def tta_views(edges: Sequence[int], mirror: bool) -> list[View]:
    """One view an edge (none: at the network's own size), and with `mirror` each of them mirrored too.

    Raises XenomaskError for an edge that is invalid or named twice, and where nothing is asked for.

    >>> [str(view) for view in tta_views((288, 384), mirror=True)]
    ['288', '288+mirror', '384', '384+mirror']
    """
    if not edges and not mirror:
        raise XenomaskError("no view is named: give shortest edges in pixels, the mirror image, or both")
    low, high = EDGES
    for edge in edges:
        if type(edge) is not int or not low <= edge <= high:
            raise XenomaskError(f"edge {edge} is no valid shortest edge: it is {low} to {high} pixels, such as 384")
    if len({*edges}) < len(edges):
        raise XenomaskError(f"views at the edges {', '.join(map(str, edges))}: one is named twice")
    return [View(edge, m) for edge in edges or (None,) for m in ([False, True] if mirror else [False])]


def at_edge(p: Preprocess, edge: int) -> Preprocess:
    """The preprocessing that makes the shortest edge `edge` pixels; its limit of the longest grows or shrinks as much.

    >>> at_edge(Preprocess("shortest", 1024, 2048), 512).longest
    1024
    >>> at_edge(Preprocess("fixed", 384, 512), 192).longest
    256
    """
    if p.policy == "fixed":  # its shape is kept
        h, w = (min(max(1, round(n * edge / min(p.size, p.longest))), 16 * LARGEST) for n in (p.size, p.longest))
        return replace(p, size=h, longest=w)
    bounded = p.policy in ("shortest", "fit", "truncated")
    longest = min(max(1, round(p.longest * edge / p.size)), 16 * LARGEST) if bounded else 16 * LARGEST
    return replace(p, policy="truncated" if p.policy == "truncated" else "shortest", size=edge, longest=longest)
