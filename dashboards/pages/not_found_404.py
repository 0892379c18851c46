"""An address that leads nowhere is a page as well."""

from typing import Any

from dash import html, register_page
from dash.development.base_component import Component

from dashboards import shell
from dashboards.shell import View

register_page(__name__, path="/404", title=shell.tab("not_found.title"))


def layout(**query: Any) -> Component:
    """What happened, and the way back."""
    view = View.read("compare", query)
    back = html.Div(shell.button(view.say("not_found.back"), view.href("compare")))
    title = html.H1(view.say("not_found.title"))
    return shell.page(view, shell.notice(title, view.say("not_found.words"), back))
