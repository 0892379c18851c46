"""What moves through time: pictures and points of a run, and the player that moves them.

The server sends everything once; from then on the browser needs nobody (``assets/pages.js``).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import dash_mantine_components as dmc
import numpy as np
from dash import ClientsideFunction, Dash, Input, Output, dcc, html
from dash.development.base_component import Component
from numpy.typing import NDArray

from dashboards.shelf import shelf
from dashboards.shell import View
from diffviz.diagnosis.sentences import Story, indexed, step_sentences, step_table, story
from diffviz.files.images import data_uri
from diffviz.recording.run import Run
from diffviz.report.frames import densities, dots, frames

SPEEDS = ("0.5", "1", "2", "4")


# ------------------------------------------------------------------ what is sent


@lru_cache(maxsize=64)
def clock(run: Run, language: str, plots: Sequence[str] = ()) -> dict[str, Any]:
    """The times, and as text the numbers and the sentences of every step."""
    table = step_table(run, language)
    return {
        "times": run.dataset["t"].values.tolist(),
        "head": table.head,
        "rows": table.rows,
        "arms": run.arms,
        "cells": table.cells,
        "sentences": {name: indexed(step_sentences(run, name, language)) for name in plots},
    }


@lru_cache(maxsize=64)
def told(run: Run, language: str) -> Story:
    """What happened in the run, judged once."""
    return story(run, language)


@lru_cache(maxsize=16)
def on_the_way(run: Run) -> dict[str, Any]:
    """The pictures, points and densities of a run, packed once for a whole class."""
    return {"frames": frames(run), "dots": dots(run), "densities": densities(run)}


# ------------------------------------------------------------------- on the page


def moving(run_id: str | None, beside: str | None, now: dict[str, Any]) -> list[Component]:
    """The clock, and a store that is filled with what moves once the page is there."""
    which = {"run": run_id, "beside": beside}
    return [
        dcc.Store(id="clock", data=now | {"run": f"{run_id} {beside}"}),
        dcc.Store(id="which", data=which),
        dcc.Store(id="moving"),
    ]


def canvas(arm: int, label: str, still: NDArray[np.uint8] | None = None) -> Component:
    """Where the samples of an arm are drawn; it has no children, so React never draws into it.

    ``still`` is seen until the frames have come.
    """
    shown: dict[str, Any] = {"role": "img", "data-arm": str(arm), "aria-label": label}
    if still is not None:
        shown |= {"height": still.shape[0], "width": still.shape[1]}
        shown["style"] = {"backgroundImage": f"url({data_uri(still)})"}
    return html.Div(html.Canvas(**shown), className="frame")


def still(run: Run, arm: int, t: int) -> NDArray[np.uint8] | None:
    """Samples of an arm at the frame nearest to t, in a row as ``scrub.images`` draws them."""
    if "frames" not in run.dataset:
        return None
    nearest = run.dataset.swap_dims(frame="frame_t").sel(frame_t=t, method="nearest")
    pixels = np.moveaxis(nearest["frames"].values[arm], 1, -1)
    tiles = np.full((*pixels.shape[:3], 4), 255, np.uint8)
    tiles[..., :3] = pixels
    gap = max(1, round(tiles.shape[2] / 16))
    return np.concatenate(np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, 0))), axis=1)[:, :-gap]


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
        return None if run is None else on_the_way(run)

    def clientside(name: str, *parts: Any) -> None:
        app.clientside_callback(ClientsideFunction("time", name), *parts)

    for name, store in (("begin", "clock"), ("moving", "moving")):
        clientside(name, Output(store, "modified_timestamp"), Input(store, "data"))
    clientside("step", Output("step", "name"), Input("step", "value"))
    clientside("speed", Output("speed", "className"), Input("speed", "value"))
    buttons = [Input(name, "n_clicks") for name in ("play", "back", "next", "reset")]
    clientside("press", Output("player", "title"), *buttons)
