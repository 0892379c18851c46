"""The Record page as Dash components; its script is ``assets/5-record.js``."""

from dash import html

from dashboards.layout import _head


def record_page() -> html.Section:
    """The section of the page."""
    return html.Section([_head("record")], hidden=True, **{"data-page": "record"})
