"""Play: the live plane of `diffviz.play`, which samples in the browser and asks nothing here."""

from typing import Any

from dash import ClientsideFunction, Input, Output, clientside_callback, dcc, html, register_page
from dash.development.base_component import Component

from dashboards import shell
from dashboards.shell import View
from diffviz.play.plane import PRESETS, options

register_page(__name__, path="/play", name="play", title=shell.tab("nav.play"), order=2)


def layout(**query: Any) -> Component:
    """The plane, at the settings of the address."""
    view = View.read("play", query)
    preset = view.get("preset", list(PRESETS), "noise")
    chosen = options(preset, view.language, theme=view.theme, address=True)
    return shell.page(
        view, shell.head(view), dcc.Store(id="plane-options", data=chosen), html.Div(id="plane")
    )


clientside_callback(
    ClientsideFunction("diffviz", "plane"),
    Output("plane-options", "modified_timestamp"),
    Input("plane-options", "data"),
)
