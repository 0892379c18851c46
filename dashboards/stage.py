"""What moves through time: pictures and points of a run, and the player that moves them.

The server sends frames once; from then on the browser needs nobody (``assets/pages.js``).
"""

from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, dcc, html
from dash.development.base_component import Component

from dashboards.clock import cloud, frames
from dashboards.shelf import shelf
from dashboards.shell import View

SPEEDS = ("0.5", "1", "2", "4")


def moving(run_id: str | None, beside: str | None = None) -> list[Component]:
    """Stores that are filled with what moves once the page is there."""
    which = {"run": run_id, "beside": beside}
    return [dcc.Store(id="which", data=which), dcc.Store(id="frames"), dcc.Store(id="cloud")]


def canvas(arm: int, label: str) -> Component:
    """Where the samples of an arm are drawn; it has no children, so React never draws into it."""
    place = html.Canvas(role="img", **{"data-arm": str(arm), "aria-label": label})
    return html.Div(place, className="frame")


def player(view: View, end: int, step: int) -> Component:
    """Play, steps, the slider and the speed; it stays in view."""

    def small(name: str, sign: str) -> Component:
        return dmc.Tooltip(
            dmc.ActionIcon(
                sign,
                id=name,
                variant="default",
                size="lg",
                **{"aria-label": view.say(f"label.{name}")},
            ),
            label=view.say(f"label.{name}"),
        )

    return html.Section(
        [
            dmc.Button(
                [
                    html.Span(view.say("label.play"), className="when-still"),
                    html.Span(view.say("label.pause"), className="when-playing"),
                ],
                id="play",
                size="md",
                className="play",
            ),
            small("back", "‹"),
            small("next", "›"),
            small("reset", "⟲"),
            dmc.Slider(
                id="step",
                min=0,
                max=end,
                step=1,
                value=step,
                label=None,
                updatemode="drag",
                thumbLabel=view.say("label.step"),
                className="steps",
                size="lg",
            ),
            html.Output(className="now", **{"aria-label": view.say("label.time")}),
            dmc.SegmentedControl(
                id="speed",
                value="1",
                data=[{"value": value, "label": f"{value}×"} for value in SPEEDS],
                size="xs",
                className="speed",
                **{"aria-label": view.say("label.speed")},
            ),
        ],
        id="player",
        className="player",
        **{"aria-label": view.say("label.player"), "data-keys": view.say("compare.keys")},
    )


def register(app: Dash) -> None:
    """The callbacks of every page on which something moves.

    Dash runs a clientside callback at the beginning only where it has an output, so each has one.
    """

    @app.callback(Output("frames", "data"), Output("cloud", "data"), Input("which", "data"))
    def send(which: dict[str, Any]) -> tuple[Any, Any]:
        run = shelf().get(which["run"], which.get("beside"))
        return (None, None) if run is None else (frames(run), cloud(run))

    def clientside(name: str, *parts: Any) -> None:
        app.clientside_callback(ClientsideFunction("time", name), *parts)

    for name, store in (("begin", "clock"), ("frames", "frames"), ("cloud", "cloud")):
        clientside(name, Output(store, "modified_timestamp"), Input(store, "data"))
    clientside("step", Output("step", "name"), Input("step", "value"))
    clientside("speed", Output("speed", "className"), Input("speed", "value"))
    clientside(
        "press",
        Output("player", "title"),
        *(Input(name, "n_clicks") for name in ("play", "back", "next", "reset")),
    )
