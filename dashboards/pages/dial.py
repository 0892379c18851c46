"""Noise dial: how much noise, how much score, and where the two balance."""

from functools import lru_cache
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import plotly.graph_objects as go
from dash import Input, Output, State, callback, ctx, html, no_update, register_page
from dash.development.base_component import Component

from dashboards import shell
from dashboards.shell import View, kept
from diffviz.diagnosis.sentences import joined
from diffviz.diffusion.balance import LAWS, ScaledDensity, balanced_score, scaled_density
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.figures import theme
from diffviz.figures.density import density_figure

register_page(__name__, path="/dial", name="dial", title=shell.tab("nav.dial"), order=3)

PLACES = {"ddpm": (1.0, 1.0), "flow": (0.0, 0.5), "mistake": (0.0, 1.0)}
"""(λ, c) of what everybody knows."""
WORKS, NEARLY = (0.075, 0.05), (0.12, 0.1)
"""Distances from the law of the data, and parts of its std, that a setting may be off by to be
called right, and nearly right."""
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
            view.say(f"dial.{name}"),
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
    return _on_grid(float(point["x"])), _on_grid(float(point["y"]))


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
    view = View.parse("dial", search)
    data = _density(law, noise, score)
    numbers = [view.say("dial.numbers", std=f"{data.std:.2f}", right=f"{data.right_std:.2f}")]
    if len(data.shares) > 1:
        small, right = min(data.shares), min(data.right_shares)
        numbers += [view.say("dial.share", share=f"{small:.0%}", right=f"{right:.0%}")]
    numbers += [view.say("dial.asked", c=f"{balanced_score(noise):.2f}")]
    told = joined(numbers, "sentences", view.language)
    words = view.say(f"dial.verdict.{_verdict(data, score - balanced_score(noise))}")
    return _figure(view, law, noise, score), _pad(view, noise, score), words, told


def _on_grid(value: float) -> float:
    return round(round(value / STEP) * STEP, 2)


def _density(law: str, noise: float, score: float) -> ScaledDensity:
    at = {"noise": noise, "score": score}
    inside = [min(max(at[name], low), high) for name, (low, high) in RANGES.items()]
    return _computed(law if law in LAWS else "gaussian", *map(_on_grid, inside))


@lru_cache(maxsize=800)
def _computed(law: str, noise: float, score: float) -> ScaledDensity:
    return scaled_density(_course(), LAWS[law], noise, score)


@lru_cache(maxsize=1)
def _course() -> NoiseSchedule:
    return NoiseSchedule.course()


def _verdict(data: ScaledDensity, off: float) -> str:
    """In a word; a setting ``off`` the balance by more than a click is not called right."""
    spread = data.std / data.right_std
    for word, (distance, part) in (("works", WORKS), ("nearly", NEARLY)):
        if data.distance < distance and abs(spread - 1) < part:
            return word if abs(off) < 0.6 * STEP else "nearly"
    if min(data.shares) < 0.02:
        return "lost"
    return "narrow" if spread < 0.95 else "wide" if spread > 1.05 else "shifted"


def _figure(view: View, law: str, noise: float, score: float) -> go.Figure:
    made = density_figure(_density(law, noise, score), view.language)
    return shell.dressed(made, view).update_layout(uirevision="density")


def _pad(view: View, noise: float, score: float) -> go.Figure:
    """The square of λ and c: the curve of balance, known places, and where we are."""
    (left, right), (low, high) = RANGES.values()
    grid = np.mgrid[left : right + STEP / 2 : STEP, low : high + STEP / 2 : STEP].reshape(2, -1)
    curve = np.linspace(0, 1, 41)
    x, y = np.array(list(PLACES.values())).T
    here = {"size": 18, "color": theme.colour(0), "line": {"color": "#ffffff", "width": 2}}
    known = {"size": 11, "symbol": "circle-open", "line_width": 2, "color": theme.REFERENCE}
    made = go.Figure(layout={"showlegend": True})
    made.add_scatter(  # unseen; a click finds the nearest of these points
        x=grid[0],
        y=grid[1],
        mode="markers",
        marker={"size": 14, "opacity": 0},
        hovertemplate="λ = %{x:.2f}, c = %{y:.2f}<extra></extra>",
    )
    made.add_scatter(x=[noise], y=[score], mode="markers", marker=here, hoverinfo="skip")
    made.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker=known,
        text=[view.say(f"dial.{name}") for name in PLACES],
        hovertemplate="%{text}<extra></extra>",
    )
    made.update_traces(showlegend=False)
    line = {"color": theme.REFERENCE, "dash": "dot", "width": 3}
    name = view.say("dial.balance")
    made.add_scatter(x=curve, y=balanced_score(curve), mode="lines", name=name, line=line)
    made.update_layout(
        height=300,
        margin={"l": 50, "r": 10, "t": 36, "b": 46},
        xaxis={"title": "λ", "range": [left - 0.06, right + 0.06], "zeroline": False},
        yaxis={"title": "c", "range": [low - 0.04, high + 0.04], "zeroline": False},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        uirevision="pad",
    )
    return shell.dressed(made, view)
