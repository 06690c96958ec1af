"""report: what a report shows -> one HTML page that needs nothing else."""

from xenomask.report.page import page as page
from xenomask.report.view import Cell as Cell
from xenomask.report.view import Crop as Crop
from xenomask.report.view import Diagram as Diagram
from xenomask.report.view import FrameView as FrameView
from xenomask.report.view import Levels as Levels
from xenomask.report.view import MethodView as MethodView
from xenomask.report.view import ObjectsView as ObjectsView
from xenomask.report.view import ReportView as ReportView
from xenomask.report.view import Table as Table
