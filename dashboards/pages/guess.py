"""Guess first: the ways of sampling behind letters. One of them lost its noise: which?"""

import random
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from dashboards import shell
from dashboards.clock import clock, told
from dashboards.shelf import shelf
from dashboards.shell import View
from dashboards.stage import canvas, moving, player
from diffviz.recording.run import Run

register_page(__name__, path="/guess", name="guess", title="diffviz: guess first", order=1)

LETTERS = "ABCDEFGH"


def layout(**query: Any) -> Component:
    """Curtains, one for each arm, and a button for each guess."""
    view = View.read("guess", query)
    run_id = view.query.get("run") or shelf().first
    run = shelf().get(run_id)
    if run is None or _lost(run) is None or len(run.spec.sample_shape) != 3:
        back = html.Div(shell.button(view.say("compare.to_record"), view.href("record")))
        words = shell.notice(view.say("guess.none_title"), view.say("guess.none"), back)
        return shell.page(view, words)
    now = clock(run, view.language, ())
    order = _order(view, run)
    curtains = [
        dmc.Card(
            [
                html.H2(LETTERS[place], id={"type": "curtain", "place": place}),
                canvas(arm, view.say("guess.samples", letter=LETTERS[place])),
                dmc.Button(
                    view.say("guess.this", letter=LETTERS[place]),
                    id={"type": "guess", "place": place},
                    fullWidth=True,
                    size="md",
                    mt="sm",
                ),
            ],
            withBorder=True,
        )
        for place, arm in enumerate(order)
    ]
    return shell.page(
        view,
        dcc.Store(id="clock", data=now | {"step": 0, "keep": True}),
        *moving(run_id),
        shell.head(view),
        html.Div(curtains, className="curtains"),
        html.Div(id="answer", className="answer", role="status"),
        player(view, len(now["times"]) - 1, 0),
    )


@callback(
    Output("answer", "children"),
    Output({"type": "curtain", "place": ALL}, "children"),
    Input({"type": "guess", "place": ALL}, "n_clicks"),
    State("_pages_location", "search"),
    State("which", "data"),
    prevent_initial_call=True,
)
def guessed(clicks: list[int | None], search: str, which: dict[str, Any]) -> tuple[Any, Any]:
    """The curtains lift: names, one sentence and one number."""
    view, run = View.parse("guess", search), shelf().get(which["run"])
    if run is None or not any(clicks):
        return no_update, no_update
    order, lost = _order(view, run), _lost(run)
    place = (ctx.triggered_id or {}).get("place", 0)
    right = place < len(order) and order[place] == lost
    names = [
        f"{LETTERS[i]} – {shell.arm_title(view, run.arms[arm], run.spec.arms[arm])}"
        for i, arm in enumerate(order)
    ]
    data = run.dataset
    spread = float(data["std_between"].values[lost, -1])
    usual = float(data["reference_std_between"].values[-1])
    answer = [
        html.P(
            view.say("guess.right" if right else "guess.wrong", letter=LETTERS[order.index(lost)])
        ),
        html.P(told(run, view.language).headline),
        html.P(view.say("guess.number", std=f"{spread:.2f}", data=f"{usual:.2f}")),
        shell.button(view.say("guess.why"), view.href("compare", run=which["run"])),
    ]
    return answer, names


def _lost(run: Run) -> int | None:
    """The arm that lost its noise."""
    for i, arm in enumerate(run.spec.arms):
        if float(arm["noise_scale"]) == 0 and str(arm["rule"]).startswith("ddpm"):
            return i
    return None


def _order(view: View, run: Run) -> list[int]:
    """The arms in an order that the number in the address decides, so that a room sees one."""
    order = list(range(min(len(run.arms), len(LETTERS))))
    random.Random(f"{view.query.get('deal', '1')}").shuffle(order)
    return order
