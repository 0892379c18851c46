"""Compare: how it ends with each way of sampling, why, and then every number of every step.

The story comes first: final samples, one sentence, where the samples go. Moving through time is
done in the browser alone (``assets/pages.js`` and ``scrub.js``); the server draws the figures.
"""

import re
from typing import Any

import dash_mantine_components as dmc
from dash import (
    ClientsideFunction,
    Input,
    Output,
    State,
    callback,
    clientside_callback,
    dcc,
    html,
    register_page,
)
from dash.development.base_component import Component

from dashboards import shell
from dashboards.clock import clock, told
from dashboards.shelf import Shelf, figure, pictures, shelf
from dashboards.shell import View
from dashboards.stage import canvas, moving, player
from diffviz.diagnosis.sentences import Story
from diffviz.errors import InputError
from diffviz.figures import caption, theme
from diffviz.recording.run import Run

register_page(__name__, path="/", name="compare", title="diffviz: compare", order=0)

PLOTS = ("map", "mean", "stds", "ks", "dial", "distance", "histogram")
MORE = ("trajectories", "staircase", "noise", "diversity", "schedule")
"""Drawn when they are asked for."""
PARTS = ("nav", "controls", "player", "numbers", "sentences", "captions")
"""What a link can hide for a lecture."""


def layout(**query: Any) -> Component:
    """The page of one run, or of two of them arm beside arm."""
    view = View.read("compare", query)
    run_id = view.query.get("run") or shelf().first
    beside = view.query.get("beside")
    try:
        run = shelf().get(run_id, beside)
    except InputError as error:
        words = view.say("compare.apart", error=error)
        again = shell.button(view.say("compare.alone"), view.href(beside=None))
        return shell.page(view, shell.notice(view.say("compare.apart_title"), words, again))
    if run is None:
        return shell.page(view, _empty(view, run_id))
    plots = tuple(name for name in PLOTS if name in pictures(run))
    now = clock(run, view.language, plots)
    end = len(now["times"]) - 1
    t = view.number("t", 0, now["times"][0], 0)
    step = min(range(end + 1), key=lambda i: abs(now["times"][i] - t))
    story = told(run, view.language)
    return shell.page(
        view,
        dcc.Store(id="clock", data=now | {"step": step}),
        *moving(run_id, beside),
        html.Header(
            [
                dmc.Title(story.headline, order=1),
                dmc.Text(view.say("compare.lead"), className="lead"),
            ],
            className="head story",
        ),
        html.Div(
            [
                html.Section(
                    [_arm(view, run, i, story) for i in range(len(run.arms))],
                    className="arms",
                    **{"aria-label": view.say("compare.arms")},
                ),
                html.Section(
                    [
                        *(plot(view, run, name) for name in plots),
                        None if "numbers" in view.hidden else _table(view, now),
                        _more(view, run),
                    ],
                    className="plots",
                ),
            ],
            className="stage",
        ),
        None if "controls" in view.hidden else _controls(view, shelf(), run, run_id),
        None if "player" in view.hidden else player(view, end, step),
    )


def plot(view: View, run: Run, name: str) -> Component:
    """One figure with its title, its sentence at this step, and what it cannot say."""
    drawn = figure(run, name, view.language, view.theme, view.big)
    if name == "map":  # its points are moved by the browser
        drawn = drawn | {"data": [trace for trace in drawn["data"] if trace["meta"] != "now"]}
    parts = [
        dmc.Title(view.text(f"figures.{name}.title"), order=2),
        html.Div(
            shell.graph(drawn, name),
            className="over-time",
            id={"type": "over-time", "name": name},
        ),
    ]
    if "sentences" not in view.hidden:
        parts.insert(1, html.P(className="say", **{"data-plot": name}))
    if "captions" not in view.hidden:
        words = [caption(name, view.language)]
        parts.append(html.Details([html.Summary(view.say("compare.caption")), html.P(words)]))
    return dmc.Card(parts, className="plot", withBorder=True)


def _arm(view: View, run: Run, index: int, story: Story) -> Component:
    """One way of sampling: its samples as they are now, how they end, and why."""
    name = run.arms[index]
    title = html.H2(
        [
            html.Span(className="swatch", style={"background": theme.colour(index)}),
            shell.arm_title(view, name, run.spec.arms[index]),
        ]
    )
    # The first sentence says how it ends; the others say how it came there.
    first, *rest = re.split(r"(?<=[.。]) ?(?=\S)", story.arms[name])
    why = " ".join([*rest, story.noise[name]])
    words = html.Div(
        [html.P(first), html.Details([html.Summary(view.say("compare.why")), html.P(why)])]
    )
    pictures = len(run.spec.sample_shape) == 3
    frame = canvas(index, view.say("compare.samples", arm=name)) if pictures else None
    return dmc.Card(
        [title, html.Div([frame, words], className="told")], className="arm", withBorder=True
    )


def _table(view: View, now: dict[str, Any]) -> Component:
    """The numbers of this step; the browser fills them in."""
    head = html.Tr([html.Td(), *(html.Th(word, scope="col") for word in now["head"])])
    rows = [
        html.Tr(
            [
                html.Th(row, scope="row"),
                *(
                    html.Td(className="num", **{"data-cell": f"{i} {j}"})
                    for j in range(len(now["head"]))
                ),
            ]
        )
        for i, row in enumerate(now["rows"])
    ]
    title = html.Caption([view.say("compare.numbers"), " ", html.B(className="now")])
    body = html.Table([title, html.Thead(head), html.Tbody(rows)], className="numbers")
    return dmc.Card(body, withBorder=True)


def _more(view: View, run: Run) -> Component:
    """The other plots, drawn when they are opened."""
    names = [name for name in MORE if name in pictures(run)]
    return dmc.Card(
        [
            dmc.Title(view.say("compare.more"), order=2),
            dmc.ChipGroup(
                [dmc.Chip(view.text(f"figures.{name}.title"), value=name) for name in names],
                id="more",
                multiple=True,
                value=[name for name in view.query.get("plots", "").split(",") if name in names],
            ),
            html.Div(id="more-plots"),
        ],
        withBorder=True,
        className="more",
    )


def _controls(view: View, shelf: Shelf, run: Run, run_id: str) -> Component:
    known = [{"value": name, "label": name} for name in shelf.runs]
    if run_id not in shelf.runs:
        known.append({"value": run_id, "label": f"{run.spec.denoiser}, n = {run.spec.n}"})
    fitting = [one for one in known if shelf.fits(run_id, one["value"])]
    files = ("run.nc", "curves.csv", "report.html")
    return dmc.Card(
        [
            dmc.Select(
                id="run",
                label=view.say("label.run"),
                data=known,
                value=run_id,
                allowDeselect=False,
            ),
            dmc.Select(
                id="beside",
                label=view.say("label.beside"),
                placeholder=view.say("compare.nothing"),
                data=fitting,
                value=view.query.get("beside"),
                clearable=True,
                disabled=not fitting,
            ),
            html.Div(
                [
                    html.A(
                        view.say(f"compare.file.{kind.partition('.')[0]}"),
                        href=f"/download/{run_id}/{kind}?lang={view.language}",
                        download="",
                        className="button quiet",
                    )
                    for kind in files
                ],
                className="files",
            ),
            html.Details(
                [
                    html.Summary(view.say("label.share"), className="button quiet"),
                    html.Div(
                        [
                            dmc.MultiSelect(
                                id="hide",
                                label=view.say("compare.hide"),
                                data=[
                                    {"value": part, "label": view.say(f"compare.part.{part}")}
                                    for part in PARTS
                                ],
                                value=list(view.hidden),
                                comboboxProps={"withinPortal": False},
                            ),
                            dmc.TextInput(
                                id="link", label=view.say("compare.link"), readOnly=True
                            ),
                            dcc.Clipboard(
                                target_id="link", title=view.say("compare.copy"), className="copy"
                            ),
                        ]
                    ),
                ],
                className="share",
            ),
        ],
        className="controls",
        withBorder=True,
    )


def _empty(view: View, run_id: str | None) -> Component:
    if run_id is None:
        title, words = view.say("compare.none_title"), view.say("compare.none")
    else:
        title, words = view.say("compare.unknown_title"), view.say("compare.unknown")
    return shell.notice(
        title,
        words,
        html.Div(shell.button(view.say("compare.to_record"), view.href("record"))),
        color="azure",
    )


@callback(
    Output("more-plots", "children"),
    Input("more", "value"),
    State("which", "data"),
    State("_pages_location", "search"),
)
def more(names: list[str], which: dict[str, Any], search: str) -> list[Component]:
    """The plots that were asked for."""
    view = View.parse("compare", search)
    run = shelf().get(which["run"], which.get("beside"))
    chosen = [name for name in MORE if run is not None and name in names and name in pictures(run)]
    return [plot(view, run, name) for name in chosen]


clientside_callback(
    ClientsideFunction("time", "attach"),
    Output("more-plots", "title"),
    Input("more-plots", "children"),
)
clientside_callback(
    ClientsideFunction("compare", "choose"),
    Output("go", "href"),
    Input("run", "value"),
    Input("beside", "value"),
    State("which", "data"),
    prevent_initial_call=True,
)
clientside_callback(
    ClientsideFunction("compare", "link"), Output("link", "value"), Input("hide", "value")
)


@callback(
    Output("run", "data"),
    Input("mine", "data"),
    State("run", "data"),
)
def known(mine: list[dict[str, str]] | None, shown: list[dict[str, str]]) -> list[dict[str, str]]:
    """The runs to choose from, with those that this browser has recorded."""
    here = {one["value"] for one in shown}
    ready = [one for one in mine or [] if one["id"] not in here and shelf().exists(one["id"])]
    return [*shown, *({"value": one["id"], "label": one["name"]} for one in ready)]
