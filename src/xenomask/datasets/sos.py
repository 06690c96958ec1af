"""Street Obstacle Sequences (Maag et al., ACCV 2022): drives towards obstacles, every eighth frame labelled."""

from pathlib import Path

from xenomask.datasets.layout import Entry, Listing, trees


def _listing(base: Path, split: str) -> Listing:
    labels = ["semantic_ood/*/*_semantic_ood.*"]
    frames, _ = trees("sos", base, "raw_data/*/*_raw_data.*", labels, after=1, labelled=True)
    return Listing(tuple(f for f in frames if f.label or split == "all"), "sos")


SOS = Entry(
    name="sos",
    title="Street Obstacle Sequences",
    listing=_listing,
    marks=("raw_data", "semantic_ood"),
    folders=("street_obstacle_sequences", "SOS"),
    coding="sos",
    layout="raw_data/sequence_NNN/NNNNNN_raw_data.jpg, semantic_ood/sequence_NNN/NNNNNN_semantic_ood.png",
    where="zenodo.org/records/7144906",
    licence="CC BY 4.0",
    conventions="its authors' code (kmaag/OOD-Tracking) pools the pixels of value 0 and 254 and drops no small "
    "component; the obstacle track's sizes are used here. Frames of a sequence are one clip of `evaluate --clips`",
    splits=("labelled", "all"),
    default="labelled",
    track="obstacle",
    counts={"labelled": 1129},
)
