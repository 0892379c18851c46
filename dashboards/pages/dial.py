"""Noise dial: how much noise, how much score, and where the two balance."""

from functools import lru_cache
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import plotly.graph_objects as go
from dash import (
    ClientsideFunction,
    Input,
    Output,
    State,
    callback,
    clientside_callback,
    ctx,
    dcc,
    html,
    no_update,
    register_page,
)
from dash.development.base_component import Component

from dashboards import shell
from dashboards.shell import View
from diffviz.diffusion.dial import LAWS, DialDensity, balanced_score, dial_density
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.figures import theme
from diffviz.figures.density import density_figure

register_page(__name__, path="/dial", name="dial", title="diffviz: noise dial", order=3)

PLACES = {"ddpm": (1.0, 1.0), "flow": (0.0, 0.5), "mistake": (0.0, 1.0)}
"""(λ, c) of what everybody knows."""
WORKS, NEARLY = 0.075, 0.12
"""Distances from the law of the data that are called right, and nearly right."""
NOISE, SCORE = (0.0, 1.5), (0.5, 1.0)


def layout(**query: Any) -> Component:
    """Two sliders and the square that they span; the densities; what they mean."""
    view = View.read("dial", query)
    law = view.get("law", list(LAWS), "gaussian")
    noise = view.number("noise", *NOISE, 0.0)
    score = view.number("score", *SCORE, 1.0)

    def slider(name: str, value: float, low: float, high: float) -> Component:
        return html.Div(
            [
                html.Label(view.say(f"dial.{name}"), className="label"),
                dmc.Slider(
                    id=name,
                    min=low,
                    max=high,
                    step=0.05,
                    value=value,
                    updatemode="drag",
                    labelAlwaysOn=False,
                    thumbLabel=view.say(f"dial.{name}"),
                    marks=[{"value": v, "label": f"{v:g}"} for v in (low, (low + high) / 2, high)],
                ),
            ],
            className="slider",
        )

    return shell.page(
        view,
        shell.head(view),
        dcc.Store(id="names", data="law,noise,score"),
        html.Div(
            [
                dmc.Card(
                    [
                        dmc.SegmentedControl(
                            id="law",
                            value=law,
                            data=[{"value": k, "label": view.say(f"dial.{k}")} for k in LAWS],
                            fullWidth=True,
                        ),
                        slider("noise", noise, *NOISE),
                        slider("score", score, *SCORE),
                        html.Div(
                            [
                                dmc.Button(
                                    view.say(f"dial.{place}"),
                                    id={"type": "place", "name": place},
                                    variant="default",
                                    size="compact-sm",
                                )
                                for place in PLACES
                            ],
                            className="files",
                        ),
                        shell.graph(_pad(view, noise, score), "pad"),
                    ],
                    withBorder=True,
                    className="form",
                ),
                dmc.Card(
                    [
                        html.P(id="verdict", className="verdict", role="status"),
                        html.P(id="dial-numbers", className="num"),
                        shell.graph(_figure(view, law, noise, score), "density"),
                        html.P(view.text("figures.density.caption"), className="caption"),
                    ],
                    withBorder=True,
                ),
            ],
            className="two",
        ),
    )


@callback(
    Output("noise", "value"),
    Output("score", "value"),
    Input({"type": "place", "name": "ddpm"}, "n_clicks"),
    Input({"type": "place", "name": "flow"}, "n_clicks"),
    Input({"type": "place", "name": "mistake"}, "n_clicks"),
    Input({"type": "plot", "name": "pad"}, "clickData"),
    prevent_initial_call=True,
)
def place(_: Any, __: Any, ___: Any, clicked: dict[str, Any] | None) -> tuple[Any, Any]:
    """Go to a known place, or to the point of the square that was clicked."""
    pressed = ctx.triggered_id or {}
    if pressed.get("name") in PLACES:
        return PLACES[pressed["name"]]
    if not clicked:
        return no_update, no_update
    point = clicked["points"][0]
    return round(float(point["x"]) * 20) / 20, round(float(point["y"]) * 20) / 20


@callback(
    Output({"type": "plot", "name": "density"}, "figure"),
    Output({"type": "plot", "name": "pad"}, "figure"),
    Output("verdict", "children"),
    Output("dial-numbers", "children"),
    Input("law", "value"),
    Input("noise", "value"),
    Input("score", "value"),
    State("_pages_location", "search"),
)
def turned(law: str, noise: float, score: float, search: str) -> tuple[Any, Any, str, str]:
    """The densities at this setting, what they mean, and the numbers at the end."""
    view = View.parse("dial", search)
    data = _density(law, noise, score)
    words = view.say(f"dial.verdict.{_verdict(data)}")
    numbers = view.say("dial.numbers", std=f"{data.std:.2f}", right=f"{data.right_std:.2f}")
    if len(data.shares) > 1:
        small, right = min(data.shares), min(data.right_shares)
        numbers += " " + view.say("dial.share", share=f"{small:.0%}", right=f"{right:.0%}")
    numbers += " " + view.say("dial.asked", c=f"{balanced_score(noise):.2f}")
    return _figure(view, law, noise, score), _pad(view, noise, score), words, numbers


def _density(law: str, noise: float, score: float) -> DialDensity:
    steps = (
        round(min(max(noise, NOISE[0]), NOISE[1]) * 20),
        round(min(max(score, 0.5), 1.0) * 20),
    )
    return _computed(law if law in LAWS else "gaussian", *steps)


@lru_cache(maxsize=800)
def _computed(law: str, noise_steps: int, score_steps: int) -> DialDensity:
    return dial_density(_course(), LAWS[law], noise_steps / 20, score_steps / 20)


@lru_cache(maxsize=1)
def _course() -> NoiseSchedule:
    return NoiseSchedule.course()


def _verdict(data: DialDensity) -> str:
    spread = data.std / data.right_std
    if data.distance < WORKS:
        return "works"
    if min(data.shares) < 0.02:
        return "lost"
    if data.distance < NEARLY:
        return "nearly"
    return "narrow" if spread < 0.95 else "wide" if spread > 1.05 else "shifted"


def _figure(view: View, law: str, noise: float, score: float) -> go.Figure:
    made = density_figure(_density(law, noise, score), view.language)
    return shell.dressed(made, view).update_layout(uirevision="density")


def _pad(view: View, noise: float, score: float) -> go.Figure:
    """The square of λ and c: the curve of balance, known places, and where we are."""
    curve = np.linspace(0, 1, 41)
    grid = np.array([(x, y) for x in np.arange(0, 1.51, 0.05) for y in np.arange(0.5, 1.01, 0.05)])
    x, y = np.array(list(PLACES.values())).T
    names = [view.say(f"dial.{name}") for name in PLACES]
    made = go.Figure()
    made.add_scatter(
        x=grid[:, 0],
        y=grid[:, 1],
        mode="markers",
        marker={"size": 14, "opacity": 0},
        hovertemplate="λ = %{x:.2f}, c = %{y:.2f}<extra></extra>",
        showlegend=False,
    )
    made.add_scatter(
        x=curve,
        y=balanced_score(curve),
        mode="lines",
        name=view.say("dial.balance"),
        line={"color": theme.REFERENCE, "dash": "dot", "width": 3},
    )
    made.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"size": 11, "symbol": "circle-open", "line": {"width": 2}},
        marker_color=theme.REFERENCE,
        text=names,
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    made.add_scatter(
        x=[noise],
        y=[score],
        mode="markers",
        showlegend=False,
        hoverinfo="skip",
        marker={"size": 18, "color": theme.colour(0), "line": {"color": "#ffffff", "width": 2}},
    )
    made.update_layout(
        height=300,
        margin={"l": 50, "r": 10, "t": 36, "b": 46},
        xaxis={"title": "λ", "range": [-0.06, 1.56], "zeroline": False},
        yaxis={"title": "c", "range": [0.46, 1.04], "zeroline": False},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        uirevision="pad",
    )
    return shell.dressed(made, view)


clientside_callback(
    ClientsideFunction("diffviz", "tell"),
    Output("verdict", "title"),
    Input("law", "value"),
    Input("noise", "value"),
    Input("score", "value"),
    State("names", "data"),
)
