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
from dashboards.shell import View
from diffviz.errors import InputError
from diffviz.figures.behaviour import behaviour_figure
from diffviz.files.images import data_uri
from diffviz.identify import zoo, zoo_results
from diffviz.identify.zoo_results import Result

register_page(__name__, path="/xray", name="xray", title="diffviz: x-ray", order=5)


def layout(**query: Any) -> Component:
    """The loop and its faults on the left, what is seen of it on the right."""
    view = View.read("xray", query)
    programs = zoo.programs()
    program = view.get("loop", list(programs), "ddpm")
    usual = "" if "loop" in view.query else "no-noise"
    chosen = [name for name in view.query.get("faults", usual).split(",") if name]
    return shell.page(
        view,
        shell.head(view),
        dcc.Store(id="xray-order"),
        dcc.Store(id="asked-faults", data=chosen),
        html.Div(
            [
                dmc.Card(
                    [
                        dmc.Select(
                            id="loop",
                            label=view.say("xray.loop"),
                            data=[
                                {"value": name, "label": zoo.title(name, view.language)}
                                for name in programs
                            ],
                            value=program,
                            allowDeselect=False,
                        ),
                        html.P(id="loop-text", className="caption"),
                        dmc.CheckboxGroup(
                            id="faults",
                            label=view.say("xray.faults"),
                            value=chosen,
                            children=_checkboxes(view, program),
                        ),
                    ],
                    withBorder=True,
                    className="form",
                ),
                html.Div(
                    [
                        html.Div(id="xray"),
                        html.Div(
                            [
                                html.P(id="xray-wait", role="status"),
                                dcc.Loading(html.Div(id="xray-live")),
                            ],
                            id="xray-background",
                            hidden=True,
                        ),
                    ],
                    className="plots",
                ),
            ],
            className="two",
        ),
    )


@callback(
    Output("faults", "children"),
    Output("faults", "value"),
    Output("loop-text", "children"),
    Input("loop", "value"),
    State("faults", "value"),
    State("_pages_location", "search"),
)
def chosen(program: str, faults: list[str], search: str) -> tuple[Any, Any, str]:
    """The faults that this loop can have."""
    view = View.parse("xray", search)
    known = [fault.name for fault in zoo.faults(program)]
    kept = [name for name in faults or [] if name in known]
    return _checkboxes(view, program), kept, zoo.text(program, view.language)


@callback(
    Output("xray", "children"),
    Output("xray-order", "data"),
    Output("xray-background", "hidden"),
    Input("faults", "value"),
    State("loop", "value"),
    State("_pages_location", "search"),
)
def shown(faults: list[str], program: str, search: str) -> tuple[Any, Any, bool]:
    """What is known already; or the order to look."""
    view = View.parse("xray", search)
    faults = sorted(faults or [])
    try:
        zoo.mutate(program, *faults)
    except InputError as error:
        return shell.notice(view.say("xray.not_together"), str(error)), no_update, True
    found = _known().get((program, *faults))
    if found is not None:
        return _seen(view, found), no_update, True
    return None, {"program": program, "faults": faults}, False


@callback(
    Output("xray-live", "children"),
    Input("xray-order", "data"),
    State("_pages_location", "search"),
    background=True,
    interval=500,
    progress=[Output("xray-wait", "children")],
    cancel=[
        Input("loop", "value"),
        Input("faults", "value"),
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
        seen = zoo_results.look(str(order["program"]), [str(name) for name in order["faults"]])
    except Exception as error:  # a loop may fail in any way, and the page has to say so
        return shell.notice(view.say("xray.failed"), f"{type(error).__name__}: {error}"[:300])
    tell("")
    return _seen(view, seen)


@cache
def _known() -> dict[tuple[str, ...], Result]:
    """The results that come with diffviz; none where the file is not there."""
    try:
        return {
            (key[0], *sorted(key[1:])): result for key, result in zoo_results.results().items()
        }
    except InputError:
        return {}


def _checkboxes(view: View, program: str) -> list[Component]:
    return [
        dmc.Checkbox(label=zoo.title(fault.name, view.language), value=fault.name, mt=6)
        for fault in zoo.faults(program)
    ]


def _seen(view: View, seen: Result) -> list[Component]:
    """The verdict, the sprites, what is found, what the states hold, and the lines."""
    verdict = {True: "right", False: "wrong", None: "unknown"}[seen.behaves]
    ordered = sorted(seen.findings, key=lambda finding: finding.severity != "error")
    said = [
        html.Li([html.B(view.say(f"xray.{finding.severity}")), " ", finding.text(view.language)])
        for finding in ordered
    ]
    figure = shell.dressed(behaviour_figure(seen.curves, view.language), view)
    return [
        dmc.Card(
            [
                html.P(
                    view.say(f"xray.verdict.{verdict}"),
                    className=f"verdict {verdict}",
                    role="status",
                ),
                html.Div(
                    [
                        html.Img(src=data_uri(sprite), alt=view.say("xray.sprite", i=i + 1))
                        for i, sprite in enumerate(seen.sprites)
                    ],
                    className="film",
                ),
                html.P(view.say("xray.sprites_note"), className="caption"),
                html.Ul(said, className="found") if said else None,
                html.P(view.say("xray.rule", rule=seen.rule)) if seen.rule else None,
            ],
            withBorder=True,
        ),
        dmc.Card(
            [
                dmc.Title(view.say("xray.behaviour"), order=2),
                shell.graph(figure, "behaviour"),
                html.P(view.say("xray.behaviour_note"), className="caption"),
            ],
            withBorder=True,
        ),
        dmc.Card([dmc.Title(view.say("xray.code"), order=2), _lines(view, seen)], withBorder=True),
    ]


def _lines(view: View, seen: Result) -> Component:
    """The loop; what is wrong is marked, and what stands in the right one."""
    signs = {"+": ("wrong", "✗ "), "-": ("right", "✓ "), " ": ("", "  ")}
    right = zoo.programs()[seen.program].source
    lines = [
        html.Span(f"{signs[sign][1]}{line}\n", className=signs[sign][0])
        for sign, line in zoo.changes(right, seen.source)
    ]
    return html.Pre(html.Code(lines), tabIndex=0, **{"aria-label": view.say("xray.code")})
