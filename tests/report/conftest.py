"""The page that the report's tests read."""

from helpers.report_pages import drawn, written  # noqa: F401
