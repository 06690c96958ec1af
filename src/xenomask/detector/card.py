"""A detector's model card: Markdown below a YAML header that the Hub reads."""

import json
from collections.abc import Mapping
from typing import Any

from xenomask.detector.known import CITYSCAPES
from xenomask.errors import XenomaskError

LICENCE_LINK = "https://www.cityscapes-dataset.com/license/"


def model_card(
    description: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]], numbers: Mapping[str, Any] | None = None
) -> str:
    """The card of a detector: its members, queries, score, numbers (of `xenomask evaluate --json`) and terms.

    `description` is `Detector.describe`'s, `facts` those of each member's network. Raises XenomaskError for numbers of
    another kind.
    """
    # Said too often rather than too seldom: any mention of Cityscapes, in training data or source, brings its terms.
    cityscapes = "cityscapes" in json.dumps(facts, default=str).lower()
    header = ["license: other"]
    if cityscapes:
        header += ["license_name: cityscapes-non-commercial", f"license_link: {LICENCE_LINK}"]
    header += ["library_name: xenomask", "pipeline_tag: image-segmentation", "tags:"]
    header += ["- anomaly-segmentation", "- out-of-distribution", "- mask-transformer"]
    name = description["detector"]
    lines = ["---", *header, "---", "", f"# {name}", ""]
    lines += ["An anomaly segmentation detector of xenomask: for each pixel of a road photo, how anomalous it is.", ""]
    lines += [*_members(description), *_origins(facts), *_numbers(numbers), "## Terms", ""]
    stated = [str(f["terms"]) for f in facts.values() if "terms" in f]
    lines += [f"- {t}" for t in dict.fromkeys(stated)]
    if cityscapes:
        lines += [f"- {CITYSCAPES} ({LICENCE_LINK}): treat these weights as **non-commercial**"]
    if not stated and not cityscapes:
        lines += ["- not stated: whoever shares this detector says here what its training data and weights allow"]
    return "\n".join([*lines, "", "Never rely on it for safety.", ""])


def _members(description: Mapping[str, Any]) -> list[str]:
    lines = ["## Members", "", "| member | weight | score | options | outlier queries | ground queries | "
             "specialised queries | weights' SHA-256 |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for m in description["members"]:
        options = ", ".join(f"{k} {v}" for k, v in m["options"].items()) or "-"
        sets = [", ".join(map(str, m[f"{k}_queries"])) or "-" for k in ("outlier", "ground", "inlier")]
        cells = [m["name"], f"{m['weight']:g}", m["score"], options, *sets, f"`{m['sha256'][:12]}`"]
        lines.append(f"| {' | '.join(cells)} |")
    for r in description.get("refine", []):
        options = ", ".join(f"{k} {v:g}" for k, v in r["options"].items())
        lines += ["", f"The fused map is refined by {r['name']} ({options})."]
    return [*lines, ""]


def _origins(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, own in facts.items():
        told = {k: v for k, v in own.items() if k != "terms" and isinstance(v, str | int | float)}
        if hub := own.get("hub"):
            told["hub"] = f"{hub['repository']} at {hub['commit']}"
        if told:
            lines.append(f"- {name}: " + "; ".join(f"{k} {v}" for k, v in told.items()))
    return ["## Origin", "", *lines, ""] if lines else []


def _numbers(numbers: Mapping[str, Any] | None) -> list[str]:
    if numbers is None:
        return ["## Numbers", "", "None were given.", ""]
    # what else stands in the file (intervals, other people's conventions) is no table of this detector's numbers
    tables = {k: numbers[k] for k in ("exact", "official") if isinstance(numbers.get(k), Mapping)}
    if not tables:
        raise XenomaskError("these are no numbers of `xenomask evaluate --json`: neither 'exact' nor 'official' there")
    rows = [f"| {c} | {k} | {v if v is not None else '-'} |" for c, t in tables.items() for k, v in t.items()]
    about = f"{numbers['frames']} frames" if "frames" in numbers else "see its own record for the data"
    return ["## Numbers", "", f"By `xenomask evaluate --json`, {about}.", "", "| convention | number | value |",
            "|---|---|---|", *rows, ""]  # fmt: skip
