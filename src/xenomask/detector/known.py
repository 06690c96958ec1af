"""Published networks that xenomask knows by name: where each lies on the Hub, its query sets and its terms.

maskomaly-paper is pinned to a commit, whose hash covers its files' hashes. A download is held against what the Hub
itself states of each weights file, and the commit that it came from is kept in the network's facts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xenomask.files import home

CITYSCAPES = "trained on Cityscapes, whose terms allow non-commercial use only"
HF_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


@dataclass(frozen=True)
class Known:
    """A published network and how xenomask reads it."""

    name: str
    what: str
    repository: str
    revision: str
    files: tuple[str, ...]
    score: str
    why_score: str
    terms: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    outlier: tuple[int, ...] = ()
    ground: tuple[int, ...] = ()
    # where the query sets come from, with the data set that chose the outlier queries
    queries_origin: Mapping[str, Any] = field(default_factory=dict)
    # its authors' own file, which `xenomask convert` reads; "" where there is none
    original: str = ""
    # (shortest, longest) edge of photos in its published numbers, where the processor beside it squeezes them
    edges: tuple[int, int] | None = None


# RbA reads no query sets, and is the one score that was published for such Swin networks with no training on anomalies
# at all (AnomalyTrack test 86.13 AP / 15.94 FPR95; EAM likewise 76.3 AP). For EoMT nothing comparable was published,
# so it gets the same score, to compare the two.
_WHY_RBA = "needs no query sets; the best published without training on anomalies (RbA, ICCV 2023)"

_ALL = (
    Known(
        name="maskomaly-paper",
        what="the network of Maskomaly (BMVC 2023): Mask2Former, Swin-L, with the query sets of its released code",
        repository="facebook/mask2former-swin-large-cityscapes-semantic",
        # the commit that added model.safetensors (866 MB), as the Hub's page of that tree names it: a commit's hash
        # covers its files' hashes. NOTE: not downloaded here, where the Hub cannot be reached
        revision="20ef8af5f1dd4f9f1548f64870cb6c0c3f5e5c19",
        files=HF_FILES,
        score="maskomaly",
        why_score="the paper's",
        options={"inlier": "confident", "mix": 0.6, "confidence": 0.7, "border": 0.1},
        outlier=(49, 31, 83, 32),
        ground=(19, 24),
        queries_origin={
            "outlier": {"dataset": "anomaly-track", "split": "validation",
                        "by": "constants of jan-ackermann/Maskomaly @48326cc; their IoUs were not published"},
            "inlier": {"dataset": "cityscapes", "split": "val",
                       "by": "ground queries alone: constants of jan-ackermann/Maskomaly @48326cc"},
        },
        terms=f"{CITYSCAPES}; the Hub states the weights' licence as 'other'",
        source="detectron2's model_final_17c1ee.pkl (facebookresearch/Mask2Former), converted by Hugging Face, which "
        "keeps the order of the queries; query sets and options: jan-ackermann/Maskomaly @48326cc",
        original="model_final_17c1ee.pkl",
        edges=(1024, 2048),
    ),
    Known(
        name="mask2former-swin-s",
        what="Mask2Former, Swin-S, Cityscapes: a baseline without query sets",
        repository="facebook/mask2former-swin-small-cityscapes-semantic",
        revision="main",
        files=HF_FILES,
        score="rba",
        why_score=_WHY_RBA,
        terms=f"{CITYSCAPES}; the Hub states the weights' licence as 'other'",
        source="detectron2's model_final_fa26ae.pkl (facebookresearch/Mask2Former), converted by Hugging Face",
        original="model_final_fa26ae.pkl",
        edges=(1024, 2048),
    ),
    Known(
        name="eomt-l",
        what="EoMT-L (DINOv2, 1024), Cityscapes: a baseline without query sets",
        repository="tue-mps/cityscapes_semantic_eomt_large_1024",
        revision="main",
        files=HF_FILES,
        score="rba",
        why_score=_WHY_RBA,
        terms=f"{CITYSCAPES}; the authors' code is MIT",
        source="tue-mps/eomt",
    ),
)  # fmt: skip
KNOWN: dict[str, Known] = {k.name: k for k in _ALL}


def by_hand(known: Known) -> Path:
    """Where a copy of a known network is looked for before the Hub is asked."""
    return home() / "known" / known.name
