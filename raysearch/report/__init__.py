"""Tables and pictures of a search, from its output folder or from what is known while it runs."""

from raysearch.report.baselines import baselines_line
from raysearch.report.page import write_report
from raysearch.report.sheet import sentence
from raysearch.report.tables import (
    closing_table,
    common_line,
    finalists_line,
    informative_line,
    latency_line,
    proxy_line,
    racing_line,
    smallest_line,
    utilisation_line,
    validation_lines,
    verdict_line,
)
from raysearch.report.tuning import tuning_line

__all__ = [
    "baselines_line",
    "closing_table",
    "common_line",
    "finalists_line",
    "informative_line",
    "latency_line",
    "proxy_line",
    "racing_line",
    "sentence",
    "smallest_line",
    "tuning_line",
    "utilisation_line",
    "validation_lines",
    "verdict_line",
    "write_report",
]
