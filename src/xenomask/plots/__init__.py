"""plots: arrays in, figure out."""

from typing import TYPE_CHECKING

from xenomask.later import later
from xenomask.plots.gallery import crop as crop
from xenomask.plots.heatmap import coloured as coloured
from xenomask.plots.heatmap import contact_sheet as contact_sheet
from xenomask.plots.heatmap import draw_boxes as draw_boxes
from xenomask.plots.heatmap import figure as figure
from xenomask.plots.heatmap import frame_title as frame_title
from xenomask.plots.heatmap import overlay as overlay
from xenomask.plots.heatmap import save_figure as save_figure
from xenomask.plots.heatmap import tile as tile
from xenomask.plots.panels import panels as panels

if TYPE_CHECKING:  # these load matplotlib
    from xenomask.plots.curves import precision_recall as precision_recall
    from xenomask.plots.curves import roc as roc
    from xenomask.plots.distribution import histogram as histogram
    from xenomask.plots.distribution import reliability_diagram as reliability_diagram
    from xenomask.plots.vector import svg as svg

__getattr__, __dir__ = later(__name__, {
    "precision_recall": "curves", "roc": "curves", "histogram": "distribution", "reliability_diagram": "distribution",
    "svg": "vector",
})  # fmt: skip
