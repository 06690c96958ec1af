"""The maps that the diagrams' tests draw."""

from helpers.report_pages import drawn  # noqa: F401
