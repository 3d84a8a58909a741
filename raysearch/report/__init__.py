"""Tables and pictures of a finished search, from its output folder alone."""

from raysearch.report.page import write_report
from raysearch.report.tables import closing_table, finalists_line, latency_line, racing_line, validation_lines

__all__ = ["closing_table", "finalists_line", "latency_line", "racing_line", "validation_lines", "write_report"]
