"""X-ray: break a right sampling loop, line by line, and see what it makes and what is found.

Every single fault is looked up in results that come with diffviz; several at once are looked at
in the background, which ends when the page is left or something else is chosen.
"""

import os
import time
from functools import cache
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, State, callback, dcc, html, no_update, register_page
from dash.development.base_component import Component

from dashboards import shell
from dashboards.jobs import Jobs
from dashboards.shelf import setting
from dashboards.shell import View, kept
from diffviz.diagnosis.sentences import joined
from diffviz.errors import InputError
from diffviz.figures.xray import behaviour_figure
from diffviz.files.images import data_uri
from diffviz.identify import zoo, zoo_results
from diffviz.identify.zoo_results import Result

register_page(__name__, path="/xray", name="xray", title=shell.tab("nav.xray"), order=5)

KINDS = {
    "noise": "noise",
    "step": ("eps", "x-coefficient", "bias"),
    "time": ("time", "step", "schedule"),
}
"""What a fault touches, and how the findings begin that it leads to."""
SIGNS = {"+": ("wrong", "✗ "), "-": ("right", "✓ "), " ": ("", "  ")}


def layout(**query: Any) -> Component:
    """The loop and its faults on the left, what is seen of it on the right."""
    view = View.read("xray", query)
    loops = {name: zoo.title(name, view.language) for name in zoo.programs()}
    loop = view.get("loop", list(loops), "ddpm")
    usual = "" if "loop" in view.query else "no-noise"
    asked = view.query.get("faults", usual).split(",")
    faults = dmc.MultiSelect(
        id=kept("faults"),
        label=view.say("xray.faults"),
        placeholder=view.say("xray.choose"),
        value=[name for name in asked if name],
        data=_faults(view, loop),
        maxDropdownHeight=440,
    )
    controls = shell.card(
        shell.select(kept("loop"), view.say("xray.loop"), loops, loop),
        html.P(id="loop-text", className="caption"),
        faults,
        className="form",
    )
    looking = [
        html.P(id="xray-wait", role="status"),
        dcc.Loading(html.Div(id="xray-live", className="plots")),
    ]
    seen = html.Div(
        [
            html.Div(id="xray", className="plots"),
            html.Div(looking, id="xray-background", hidden=True),
        ]
    )
    order = dcc.Store(id="xray-order")
    return shell.page(view, shell.head(view), order, html.Div([controls, seen], className="two"))


@callback(
    Output(kept("faults"), "data"),
    Output(kept("faults"), "value"),
    Output("loop-text", "children"),
    Input(kept("loop"), "value"),
    State(kept("faults"), "value"),
    State("_pages_location", "search"),
)
def chosen(loop: str, faults: list[str], search: str) -> tuple[Any, Any, str]:
    """The faults that this loop can have."""
    view = View.parse("xray", search)
    known = {fault.name for fault in zoo.faults(loop)}
    left = [name for name in faults or [] if name in known]
    return _faults(view, loop), left, zoo.text(loop, view.language)


@callback(
    Output("xray", "children"),
    Output("xray-order", "data"),
    Output("xray-background", "hidden"),
    Input(kept("faults"), "value"),
    State(kept("loop"), "value"),
    State("_pages_location", "search"),
)
def shown(faults: list[str], loop: str, search: str) -> tuple[Any, Any, bool]:
    """What is known already; or the order to look."""
    view = View.parse("xray", search)
    faults = sorted(faults or [])
    try:
        zoo.mutate(loop, *faults)
    except InputError as error:
        return shell.notice(view.say("xray.not_together"), str(error)), no_update, True
    found = _known().get((loop, *faults))
    if found is not None:
        return _seen(view, found), no_update, True
    return None, {"loop": loop, "faults": faults}, False


@callback(
    Output("xray-live", "children"),
    Input("xray-order", "data"),
    State("_pages_location", "search"),
    background=True,
    interval=500,
    progress=[Output("xray-wait", "children")],
    cancel=[
        Input(kept("loop"), "value"),
        Input(kept("faults"), "value"),
        Input("_pages_location", "pathname"),
    ],
    prevent_initial_call=True,
)
def looked(tell: Any, order: dict[str, Any], search: str) -> Any:
    """Run the loop under the x-ray, one such at a time."""
    view = View.parse("xray", search)
    jobs: Jobs = setting("JOBS")
    while before := jobs.before(os.getpid(), "xray"):
        tell(view.say("record.state.waiting", before=before))
        time.sleep(0.5)
    tell(view.say("xray.looking"))
    try:
        seen = zoo_results.look(str(order["loop"]), [str(name) for name in order["faults"]])
    except Exception as error:  # a loop may fail in any way, and the page has to say so
        return shell.notice(view.say("xray.failed"), f"{type(error).__name__}: {error}"[:300])
    tell("")
    return _seen(view, seen)


@cache
def _known() -> dict[tuple[str, ...], Result]:
    """The results that come with diffviz; none where the file is not there."""
    try:
        found = zoo_results.results()
    except InputError:
        return {}
    return {(key[0], *sorted(key[1:])): result for key, result in found.items()}


def _faults(view: View, loop: str) -> list[dict[str, Any]]:
    """The faults of a loop to choose from, by what they touch."""
    groups: dict[str, dict[str, str]] = {}
    for fault in zoo.faults(loop):
        group = next(
            (kind for kind, starts in KINDS.items() if fault.finding.startswith(starts)), "values"
        )
        groups.setdefault(group, {})[fault.name] = zoo.title(fault.name, view.language)
    return [
        {"group": view.say(f"xray.group.{group}"), "items": shell.options(labels)}
        for group, labels in groups.items()
    ]


def _seen(view: View, seen: Result) -> list[Component]:
    """The verdict, the sprites, what is found, what the states hold, and the lines."""
    verdict = {True: "right", False: "wrong", None: "unknown"}[seen.behaves]
    broken = any(one.id == "nonfinite" for one in seen.findings)
    said = [
        html.Li(
            [
                html.B(view.say(f"xray.{one.severity}")),
                joined(["", one.text(view.language)], "sentences", view.language),
            ]
        )
        for one in sorted(seen.findings, key=lambda one: one.severity != "error")
    ]
    sprites = [
        html.Img(src=data_uri(sprite), alt=view.say("xray.sprite", i=i + 1))
        for i, sprite in enumerate(seen.sprites)
    ]
    figure = shell.dressed(behaviour_figure(seen.curves, view.language), view)
    return [
        shell.card(
            html.P(
                view.say(f"xray.verdict.{'broken' if broken else verdict}"),
                className=f"verdict {verdict}",
                role="status",
            ),
            html.Div(sprites, className="film"),
            html.P(view.say("xray.sprites_note"), className="caption"),
            html.Ul(said, className="found") if said else None,
            html.P(view.say("xray.rule", rule=seen.rule)) if seen.rule else None,
        ),
        shell.card(
            shell.graph(figure, "behaviour"),
            html.P(view.say("xray.behaviour_note"), className="caption"),
            title=view.say("xray.behaviour"),
        ),
        shell.card(_lines(view, seen), title=view.say("xray.code")),
    ]


def _lines(view: View, seen: Result) -> Component:
    """The loop; what is wrong is marked, and what stands in the right one."""
    lines = [
        html.Span(f"{SIGNS[sign][1]}{line}\n", className=SIGNS[sign][0])
        for sign, line in zoo.changes(zoo.programs()[seen.program].source, seen.source)
    ]
    return html.Pre(html.Code(lines), tabIndex=0, **{"aria-label": view.say("xray.code")})
