"""Guess first: the ways of sampling behind letters. One of them lost its noise: which?

Before the guess only the first part of the way is shown, where all samples still look like noise.
"""

import random
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Input, Output, Patch, State, callback, ctx, html, no_update, register_page
from dash.development.base_component import Component

from dashboards import shell
from dashboards.shelf import shelf
from dashboards.shell import View
from dashboards.stage import canvas, clock, moving, player, told
from diffviz.recording.run import Run

register_page(__name__, path="/guess", name="guess", title=shell.tab("nav.guess"), order=1)

LETTERS = "ABCDEFGH"
SHOWN = 0.1
"""Part of the way that is shown before the guess."""


def layout(**query: Any) -> Component:
    """Curtains, one for each arm, and a button for each guess."""
    view = View.read("guess", query)
    run_id = view.query.get("run") or shelf().first
    run = shelf().get(run_id)
    if run is None or shell.lost_noise(run.spec.arms) is None or len(run.spec.sample_shape) != 3:
        back = html.Div(shell.button(view.say("compare.to_record"), view.href("record")))
        words = shell.notice(view.say("guess.none_title"), view.say("guess.none"), back)
        return shell.page(view, words)
    now = clock(run, view.language)
    first = now["times"][: round(SHOWN * len(now["times"])) + 1]
    curtains = [
        shell.card(
            html.H2(LETTERS[place], id={"type": "curtain", "place": place}),
            canvas(arm, view.say("guess.samples", letter=LETTERS[place])),
            dmc.Button(
                view.say("guess.this", letter=LETTERS[place]),
                id={"type": "guess", "place": place},
                fullWidth=True,
                size="md",
                mt="sm",
            ),
        )
        for place, arm in enumerate(_order(view, run))
    ]
    return shell.page(
        view,
        *moving(run_id, None, now | {"times": first, "step": 0, "keep": True}),
        shell.head(view),
        html.Div(curtains, className="curtains"),
        html.Div(id="answer", className="answer", role="status"),
        player(view, len(now["times"]) - 1, 0),
    )


@callback(
    Output("answer", "children"),
    Output({"type": "curtain", "place": ALL}, "children"),
    Output({"type": "guess", "place": ALL}, "color"),
    Output({"type": "guess", "place": ALL}, "variant"),
    Output("clock", "data"),
    Input({"type": "guess", "place": ALL}, "n_clicks"),
    State("_pages_location", "search"),
    State("which", "data"),
    prevent_initial_call=True,
)
def guessed(clicks: list[int | None], search: str, which: dict[str, Any]) -> tuple[Any, ...]:
    """The curtains lift: names, one sentence, one number, which guess was right, and the end."""
    view, run = View.parse("guess", search), shelf().get(which["run"])
    lost = None if run is None else shell.lost_noise(run.spec.arms)
    if run is None or lost is None or not any(clicks):
        return (no_update,) * 5
    order = _order(view, run)
    guess, answer = (ctx.triggered_id or {}).get("place"), order.index(lost)
    names = [
        f"{LETTERS[i]} – {shell.arm_title(view, run.arms[arm], run.spec.arms[arm])}"
        for i, arm in enumerate(order)
    ]
    letter = LETTERS[answer]
    std = f"{run.dataset['std_between'].values[lost, -1]:.2f}"
    of_data = f"{run.dataset['reference_std_between'].values[-1]:.2f}"
    said = [
        view.say("guess.right" if guess == answer else "guess.wrong", letter=letter),
        told(run, view.language).headline,
        view.say("guess.number", std=std, data=of_data),
    ]
    deal = view.query.get("deal", "1")
    again = view.href(deal=int(deal) + 1 if deal.isdecimal() else 2)
    on = [
        shell.button(view.say("guess.why"), view.href("compare", run=which["run"])),
        shell.button(view.say("guess.again"), again),
    ]
    colours = ["teal" if i == answer else "red" for i in range(len(order))]
    shown = ["filled" if i in (guess, answer) else "default" for i in range(len(order))]
    whole = Patch()
    whole["times"], whole["play"] = clock(run, view.language)["times"], True
    return [*map(html.P, said), html.Div(on, className="files")], names, colours, shown, whole


def _order(view: View, run: Run) -> list[int]:
    """The arms in an order that the number in the address decides, so that a room sees one."""
    order = list(range(min(len(run.arms), len(LETTERS))))
    random.Random(view.query.get("deal", "1")).shuffle(order)
    return order
