"""Anomalous objects -> the words and cells in which commands and pages show them."""

from collections.abc import Sequence

from xenomask.objects.objects import AnomalyObject

HEAD = ("box", "at x, y", "size, px", "of image", "score", "nearest class")
MOST = 10  # rows of a photo's table


def sentence(found: Sequence[AnomalyObject], threshold: float) -> str:
    """One photo's objects, as a sentence.

    >>> sentence([], 0.25)
    'nothing found: no object scores above 0.25'
    """
    if not found:
        return f"nothing found: no object scores above {threshold:.3g}"
    first, count = found[0], len(found)
    return f"1 anomalous object: {first}" if count == 1 else f"{count} anomalous objects, the first: {first}"


def cells(number: int, o: AnomalyObject) -> tuple[str, ...]:
    """One object's row below HEAD; its number is that of its box in the overlay."""
    x, y, w, h = o.box
    return str(number), f"{x}, {y}", f"{w}x{h}", f"{100 * o.share:.1f} %", f"{o.score:.3f}", o.nearest
