"""plots: arrays in, figure out."""

from xenomask.plots.heatmap import coloured as coloured
from xenomask.plots.heatmap import contact_sheet as contact_sheet
from xenomask.plots.heatmap import figure as figure
from xenomask.plots.heatmap import frame_title as frame_title
from xenomask.plots.heatmap import overlay as overlay
