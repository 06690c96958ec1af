"""queries: MaskOutput + labels -> QuerySet."""

from xenomask.queries.analysis import analyse_inlier as analyse_inlier
from xenomask.queries.analysis import analyse_outlier as analyse_outlier
from xenomask.queries.analysis import read_queries as read_queries
from xenomask.queries.analysis import without_frame as without_frame
from xenomask.queries.analysis import write_inlier_csv as write_inlier_csv
from xenomask.queries.analysis import write_outlier_csv as write_outlier_csv
from xenomask.queries.analysis import write_queries as write_queries
