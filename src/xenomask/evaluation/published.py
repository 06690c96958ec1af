"""Published AUPR / FPR95 on validation splits, as their sources print them: for reference beside measured ones.

Their conventions are their own, and the outlier queries of the Maskomaly rows were chosen on these very frames.
"""

from typing import Any


def _p(method: str, aupr: float, fpr95: float | None, source: str) -> dict[str, Any]:
    return {"method": method, "aupr": aupr, "fpr95": fpr95, "source": source}


_SHIFT = "table of the MultiShiftSeg paper"
_STUDENT = "student repositories"
PUBLISHED: dict[str, tuple[dict[str, Any], ...]] = {
    "anomaly-track": (
        _p("MultiShiftSeg (R50, trained)", 0.9731, 0.0104, _SHIFT),
        _p("Mask2Anomaly", 0.9450, 0.0330, _SHIFT),
        _p("Maskomaly (Swin-L), official evaluator", 0.9409, 0.0340, "RAAS port, README"),
        _p("Swin-S + Swin-L Maskomaly ensemble", 0.9138, 0.0451, "the student entry that this project rebuilds"),
        _p("RPL", 0.8855, 0.0718, "quoted in later tables"),
        _p("EoMT-B entropy", 0.7788, None, _STUDENT),
        _p("EoMT-B MSP", 0.7436, None, _STUDENT),
        _p("ERFNet MSP", 0.291, 0.625, _STUDENT),
    ),
    "obstacle-track": (
        _p("RPL", 0.9691, 0.0009, "quoted in later tables"),
        _p("MultiShiftSeg (R50, trained)", 0.9324, 0.0014, _SHIFT),
        _p("EoMT-B MSP", 0.9011, None, _STUDENT),
        _p("Maskomaly (Swin-L), official evaluator", 0.8862, 0.0281, "RAAS port, README"),
        _p("Mask2Anomaly", 0.8860, 0.0030, _SHIFT),
    ),
    "road-anomaly": (
        _p("UNO", 0.824, 0.092, "README of UNO/EAM"),
        _p("RbA, Swin-L, no outlier exposure", 0.7968, 0.1502, "README of RbA"),
        _p("Maskomaly", 0.7090, 0.1190, "quoted in later tables"),
        _p("EAM", 0.694, 0.077, "README of UNO/EAM"),
    ),
    "fishyscapes-lost-and-found": (
        _p("RbA, Swin-B", 0.6096, 0.1063, "README of RbA"),
        _p("Mask2Anomaly", 0.6946, 0.0931, "README of Mask2Anomaly"),
    ),
    "fishyscapes-static": (
        _p("Mask2Anomaly", 0.9054, 0.0198, "README of Mask2Anomaly"),
        _p("RbA", 0.7543, 0.0352, "README of RbA"),
    ),
}
