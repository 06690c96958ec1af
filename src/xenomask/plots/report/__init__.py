"""plots.report: what a report shows -> one HTML page that needs nothing else."""

from xenomask.plots.report.page import page as page
from xenomask.plots.report.view import Cell as Cell
from xenomask.plots.report.view import Crop as Crop
from xenomask.plots.report.view import Diagram as Diagram
from xenomask.plots.report.view import FrameView as FrameView
from xenomask.plots.report.view import Levels as Levels
from xenomask.plots.report.view import MethodView as MethodView
from xenomask.plots.report.view import ReportView as ReportView
from xenomask.plots.report.view import Table as Table
