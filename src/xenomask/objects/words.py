"""Anomalous objects -> the words and cells in which commands and pages show them."""

from collections.abc import Sequence

from xenomask.objects.objects import AnomalyObject, percent

HEAD = ("box", "at x, y", "size, px", "of image", "score", "nearest class")
MOST = 10  # rows of a photo's table


def sentence(
    found: Sequence[AnomalyObject], threshold: float, highest: float | None = None, *, ignores: bool = False
) -> str:
    """One photo's objects, as a sentence; `highest` is the map's largest score, where it is known.

    `ignores`: whether a part of the photo belongs to no object.

    >>> sentence([], 0.25), sentence([], 0.25, 0.125)
    ('nothing found: no object scores above 0.25', 'nothing found: the highest score is 0.125, the threshold 0.25')
    >>> sentence([], 0.25, 0.5), sentence([], 0.25, 0.5, ignores=True)[-29:]
    ('nothing found: what scores above 0.25 is too small (--smallest)', 'small (--smallest) or ignored')
    """
    if not found:
        if highest is None:
            why = f"no object scores above {threshold:.3g}"
        elif highest > threshold:
            why = f"what scores above {threshold:.3g} is too small (--smallest){' or ignored' * ignores}"
        else:
            why = f"the highest score is {highest:.3g}, the threshold {threshold:.3g}"
        return f"nothing found: {why}"
    first, count = found[0], len(found)
    return f"1 anomalous object: {first}" if count == 1 else f"{count} anomalous objects, the first: {first}"


def cells(number: int, o: AnomalyObject) -> tuple[str, ...]:
    """One object's row below HEAD; its number is that of its box in the overlay."""
    x, y, w, h = o.box
    return str(number), f"{x}, {y}", f"{w}x{h}", percent(o.share), f"{o.score:.3g}", o.nearest
