"""A run as one HTML file for people, and as JSON for programs."""

from diffviz.diagnosis.numbers import report_numbers, write_numbers
from diffviz.report.page import write_report

__all__ = ["report_numbers", "write_numbers", "write_report"]
