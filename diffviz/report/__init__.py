"""A run as one HTML file for people, and its numbers for programs. Read ``page`` first."""

from diffviz.report.data import report_numbers, write_numbers
from diffviz.report.page import write_report

__all__ = ["report_numbers", "write_numbers", "write_report"]
