"""What moves through time: pictures and points of a run, and the player that moves them.

The server sends everything once; from then on the browser needs nobody (``assets/pages.js``).
"""

import base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import dash_mantine_components as dmc
import numpy as np
from dash import ClientsideFunction, Dash, Input, Output, dcc, html
from dash.development.base_component import Component
from numpy.typing import NDArray

from dashboards.shelf import pictures, shelf
from dashboards.shell import View
from diffviz.diagnosis.sentences import Story, step_sentences, step_table, story
from diffviz.figures import theme
from diffviz.figures.histogram import histogram_data
from diffviz.figures.map import map_data
from diffviz.recording.run import Run

SPEEDS = ("0.5", "1", "2", "4")
BYTES = 2_400_000
"""Of all frames together, raw: a page stays below 6 MB."""
POINTS, HISTOGRAMS = 16, 60
"""Samples that move on the map; times at which the histogram is sent."""


# ------------------------------------------------------------------ what is sent


@lru_cache(maxsize=64)
def clock(run: Run, language: str, plots: Sequence[str] = ()) -> dict[str, Any]:
    """The times, and as text the numbers and the sentences of every step."""
    table = step_table(run, language)
    return {
        "times": run.dataset["t"].values.tolist(),
        "head": table.head,
        "rows": table.rows,
        "cells": table.cells,
        "sentences": {name: _distinct(step_sentences(run, name, language)) for name in plots},
    }


@lru_cache(maxsize=64)
def told(run: Run, language: str) -> Story:
    """What happened in the run, judged once."""
    return story(run, language)


def _distinct(sentences: Sequence[str]) -> dict[str, list]:
    """Each sentence once, and which of them is said at each step."""
    texts = list(dict.fromkeys(sentences))
    index = {sentence: i for i, sentence in enumerate(texts)}
    return {"texts": texts, "at": [index[sentence] for sentence in sentences]}


@lru_cache(maxsize=16)
def frames(run: Run) -> dict[str, Any] | None:
    """Pictures of the first samples of every arm on their way, as bytes in base64.

    As many frames and samples as ``BYTES`` hold; None for a run without images.
    """
    data = run.dataset
    if "frames" in data:
        x, times = data["frames"].values, data["frame_t"].values
    elif len(run.spec.sample_shape) == 3 and run.spec.sample_shape[0] in (1, 3):
        x = np.clip((data["snapshots"].values[:, :, :8] + 1) * 127.5 + 0.5, 0, 255)
        x, times = x.astype(np.uint8), data["snapshot"].values
    else:
        return None
    kept = x.shape[2]
    while kept > 4 and x[:, :100, :kept].size > BYTES:
        kept -= 2
    x = x[:, :, :kept]
    stride = max(1, -(-x.size // BYTES))
    rows = np.unique(np.append(np.arange(0, x.shape[1], stride), x.shape[1] - 1))
    return _sent(x[:, rows], times[rows]) | {"samples": kept, "shape": list(x.shape[3:])}


@lru_cache(maxsize=16)
def cloud(run: Run) -> dict[str, Any] | None:
    """Where the kept samples are in the plane of the data, as the map shows it; or None."""
    shown = map_data(run)
    if shown is None:
        return None
    x = shown.x[:, :, :POINTS].astype("<f4")
    panels = [
        dict(zip("xy", theme.axes(arm), strict=True), colour=theme.colour(arm))
        for arm in range(len(x))
    ]
    return _sent(x, shown.t) | {"samples": x.shape[2], "panels": panels}


@lru_cache(maxsize=16)
def histograms(run: Run) -> dict[str, Any] | None:
    """The curves of the histogram at some times; of q(x_t) first, where it is known."""
    if "histogram" not in pictures(run):
        return None
    shown = histogram_data(run)
    curves = np.stack([shown.reference, *shown.density])
    if not np.isfinite(shown.reference).any():
        curves = curves[1:]
    rows = np.unique(np.linspace(0, len(shown.t) - 1, HISTOGRAMS).astype(int))
    y = np.nan_to_num(curves[:, rows]).astype("<f4")
    return _sent(y, shown.t[rows]) | {"bins": y.shape[2]}


def _sent(x: NDArray[Any], times: NDArray[Any]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()
    return {"data": data, "times": times.tolist(), "arms": x.shape[0]}


# ------------------------------------------------------------------- on the page


def moving(run_id: str | None, beside: str | None, now: dict[str, Any]) -> list[Component]:
    """The clock, and a store that is filled with what moves once the page is there."""
    which = {"run": run_id, "beside": beside}
    return [
        dcc.Store(id="clock", data=now | {"run": f"{run_id} {beside}"}),
        dcc.Store(id="which", data=which),
        dcc.Store(id="moving"),
    ]


def canvas(arm: int, label: str) -> Component:
    """Where the samples of an arm are drawn; it has no children, so React never draws into it."""
    place = html.Canvas(role="img", **{"data-arm": str(arm), "aria-label": label})
    return html.Div(place, className="frame")


def player(view: View, end: int, step: int) -> Component:
    """Play, steps, the slider and the speed; it stays in view."""

    def small(name: str, sign: str) -> Component:
        label = view.say(f"label.{name}")
        pressed = dmc.ActionIcon(
            sign, id=name, variant="default", size="lg", **{"aria-label": label}
        )
        return dmc.Tooltip(pressed, label=label)

    return html.Section(
        [
            dmc.Button(
                [
                    html.Span(view.say("label.play"), className="when-still"),
                    html.Span(view.say("label.pause"), className="when-playing"),
                ],
                id="play",
                size="lg",
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

    @app.callback(Output("moving", "data"), Input("which", "data"))
    def send(which: dict[str, Any]) -> Any:
        run = shelf().get(which["run"], which.get("beside"))
        if run is None:
            return None
        return {"frames": frames(run), "cloud": cloud(run), "histograms": histograms(run)}

    def clientside(name: str, *parts: Any) -> None:
        app.clientside_callback(ClientsideFunction("time", name), *parts)

    for name, store in (("begin", "clock"), ("moving", "moving")):
        clientside(name, Output(store, "modified_timestamp"), Input(store, "data"))
    clientside("step", Output("step", "name"), Input("step", "value"))
    clientside("speed", Output("speed", "className"), Input("speed", "value"))
    buttons = [Input(name, "n_clicks") for name in ("play", "back", "next", "reset")]
    clientside("press", Output("player", "title"), *buttons)
