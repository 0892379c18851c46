"""Noise dial: how much noise, how much score, and where the two balance."""

from functools import lru_cache
from typing import Any

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Input, Output, State, callback, ctx, html, no_update, register_page
from dash.development.base_component import Component

from dashboards import shell
from dashboards.shell import View, kept
from diffviz.diagnosis.sentences import joined
from diffviz.diagnosis.verdicts import dial_verdict
from diffviz.diffusion.balance import LAWS, ScaledDensity, balanced_score, scaled_density
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.figures.density import PLACES, density_figure, pad_figure

register_page(__name__, path="/dial", name="dial", title=shell.tab("nav.dial"), order=3)

RANGES = {"noise": (0.0, 1.5), "score": (0.5, 1.0)}
STEP = 0.05


def layout(**query: Any) -> Component:
    """Two sliders and the square that they span; the densities; what they mean."""
    view = View.read("dial", query)
    law = view.get("law", list(LAWS), "gaussian")
    noise = view.number("noise", *RANGES["noise"], 0.0)
    score = view.number("score", *RANGES["score"], 1.0)

    def slider(name: str, value: float) -> Component:
        low, high = RANGES[name]
        control = dmc.Slider(
            id=kept(name),
            min=low,
            max=high,
            step=STEP,
            value=value,
            updatemode="drag",
            thumbLabel=view.say(f"dial.{name}"),
            marks=[{"value": v, "label": f"{v:g}"} for v in (low, (low + high) / 2, high)],
        )
        label = html.Label(view.say(f"dial.{name}"), className="label")
        return html.Div([label, control], className="slider")

    laws = shell.options({name: view.say(f"dial.{name}") for name in LAWS})
    places = [
        dmc.Button(
            view.text(f"figures.pad.{name}"),
            id={"type": "place", "name": name},
            variant="default",
            size="compact-sm",
        )
        for name in PLACES
    ]
    controls = shell.card(
        dmc.SegmentedControl(id=kept("law"), value=law, data=laws, fullWidth=True),
        slider("noise", noise),
        slider("score", score),
        html.Div(places, className="files"),
        shell.graph(_pad(view, noise, score), "pad"),
        className="form",
    )
    seen = shell.card(
        html.P(id="verdict", className="verdict", role="status"),
        html.P(id="dial-numbers", className="num"),
        shell.graph(_figure(view, law, noise, score), "density"),
        html.P(view.text("figures.density.caption"), className="caption"),
    )
    return shell.page(view, shell.head(view), html.Div([controls, seen], className="two"))


@callback(
    Output(kept("noise"), "value"),
    Output(kept("score"), "value"),
    *(Input({"type": "place", "name": name}, "n_clicks") for name in PLACES),
    Input({"type": "plot", "name": "pad"}, "clickData"),
    prevent_initial_call=True,
)
def place(*clicked: Any) -> tuple[Any, Any]:
    """Go to a known place, or to the point of the square that was clicked."""
    name = (ctx.triggered_id or {}).get("name")
    if name in PLACES:
        return PLACES[name]
    if not clicked[-1]:
        return no_update, no_update
    point = clicked[-1]["points"][0]
    return point["x"], point["y"]


@callback(
    Output({"type": "plot", "name": "density"}, "figure"),
    Output({"type": "plot", "name": "pad"}, "figure"),
    Output("verdict", "children"),
    Output("dial-numbers", "children"),
    *(Input(kept(name), "value") for name in ("law", "noise", "score")),
    State("_pages_location", "search"),
)
def turned(law: str, noise: float, score: float, search: str) -> tuple[Any, Any, str, str]:
    """The densities at this setting, what they mean, and the numbers at the end."""
    view, data = View.parse("dial", search), _density(law, noise, score)
    numbers = [view.say("dial.numbers", std=f"{data.std:.2f}", right=f"{data.right_std:.2f}")]
    if len(data.shares) > 1:
        small, right = min(data.shares), min(data.right_shares)
        numbers += [view.say("dial.share", share=f"{small:.0%}", right=f"{right:.0%}")]
    numbers += [view.say("dial.asked", c=f"{balanced_score(noise):.2f}")]
    words = view.say(f"dial.verdict.{dial_verdict(data, score - balanced_score(noise))}")
    said = joined(numbers, "sentences", view.language)
    return _figure(view, law, noise, score), _pad(view, noise, score), words, said


@lru_cache(maxsize=800)
def _density(law: str, noise: float, score: float) -> ScaledDensity:
    return scaled_density(NoiseSchedule.course(), LAWS[law], noise, score)


def _figure(view: View, law: str, noise: float, score: float) -> go.Figure:
    return shell.dressed(density_figure(_density(law, noise, score), view.language), view)


def _pad(view: View, noise: float, score: float) -> go.Figure:
    made = pad_figure(noise, score, *RANGES.values(), STEP, view.language)
    return shell.dressed(made, view)
