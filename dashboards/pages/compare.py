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
from dashboards.shelf import FILES, figure, pictures, shelf
from dashboards.shell import View, kept
from dashboards.stage import canvas, clock, moving, player, still, told
from diffviz.diagnosis.sentences import Story, joined
from diffviz.errors import InputError
from diffviz.figures import caption, theme
from diffviz.recording.run import Run

register_page(__name__, path="/", name="compare", title=shell.tab("nav.compare"), order=0)

PLOTS = {"map": 3, "mean": 4, "stds": 4, "ks": 4, "dial": 5, "distance": 3, "histogram": 4}
"""Drawn at once: name → the lesson that explains it."""
MORE = {"trajectories": 2, "staircase": 5, "noise": 2, "diversity": 3, "schedule": 1}
"""Drawn when they are asked for."""
PARTS = ("nav", "controls", "player", "numbers", "sentences", "captions")
"""What a link can hide for a lecture."""


def layout(**query: Any) -> Component:
    """The page of one run, or of two of them arm beside arm."""
    view = View.read("compare", query)
    run_id, beside = view.query.get("run") or shelf().first, view.query.get("beside")
    try:
        run = shelf().get(run_id, beside)
    except InputError as error:
        again = shell.button(view.say("compare.alone"), view.href(beside=None))
        title, words = view.say("compare.apart_title"), view.say("compare.apart", error=error)
        return shell.page(view, shell.notice(title, words, html.Div(again)))
    if run is None or run_id is None:
        which = "none" if run_id is None else "unknown"
        to_record = shell.button(view.say("compare.to_record"), view.href("record"))
        title, words = view.say(f"compare.{which}_title"), view.say(f"compare.{which}")
        return shell.page(view, shell.notice(title, words, html.Div(to_record)))
    plots = tuple(name for name in PLOTS if name in pictures(run))
    now, story = clock(run, view.language, plots), told(run, view.language)
    end = len(now["times"]) - 1
    t = view.number("t", 0, now["times"][0], 0)
    step = min(range(end + 1), key=lambda i: abs(now["times"][i] - t))
    lost = shell.lost_noise(run.spec.arms)
    lead = view.say("compare.lead")
    if lost is not None:
        name = run.arms[lost]
        why = [view.say("compare.lost", name=name), story.noise[name]]
        lead = f"{joined(why, 'sentences', view.language)}\n{lead}"
    arms = html.Section(
        [_arm(view, run, i, story, now["times"][step]) for i in range(len(run.arms))],
        className="arms",
        **{"aria-label": view.say("compare.arms")},
    )
    numbers = None if "numbers" in view.hidden else _table(view, now, step)
    graphs = [plot(view, run, name, ended=step == end) for name in plots]
    return shell.page(
        view,
        *moving(run_id, beside, now | {"step": step}),
        html.Header(
            [dmc.Title(story.headline, order=1), dmc.Text(lead, className="lead")],
            className="head story",
        ),
        html.Div(
            [arms, html.Section([*graphs, numbers, _more(view, run)], className="plots")],
            className="stage",
        ),
        None if "controls" in view.hidden else _controls(view, run, run_id, beside),
        None if "player" in view.hidden else player(view, end, step),
    )


def plot(view: View, run: Run, name: str, ended: bool = False) -> Component:
    """One figure with its title, its sentence at this step, its lesson, what it cannot say."""
    drawn = figure(run, name, view.language, view.theme, view.big, view.narrow)
    if not ended:  # the points of the end; the browser draws those of the step over the figure
        drawn = drawn | {"data": [trace for trace in drawn["data"] if trace.get("meta") != "now"]}
    number = (PLOTS | MORE)[name]
    lesson = dcc.Link(
        view.say("compare.lesson", n=number),
        href=f"{view.href('lesson')}#lesson-{number}",
        className="lesson-link",
    )
    words = html.P([html.Span(**{"data-plot": name}), " ", lesson], className="say")
    over_time = html.Div(
        shell.graph(drawn, name), className="over-time", id={"type": "over-time", "name": name}
    )
    summary = html.Summary(view.say("compare.caption"))
    more = html.Details([summary, html.P(caption(name, view.language))])
    return shell.card(
        None if "sentences" in view.hidden else words,
        over_time,
        None if "captions" in view.hidden else more,
        title=view.text(f"figures.{name}.title"),
        className=f"plot plot-{name}",
    )


def _arm(view: View, run: Run, index: int, story: Story, t: int) -> Component:
    """One way of sampling: its samples as they are now, how they end, and why."""
    name = run.arms[index]
    swatch = html.Span(className="swatch", style={"background": theme.colour(index)})
    # The first sentence says how it ends; the others say how it came there.
    first, *rest = re.split(r"(?<=[.。]) ?(?=\S)", story.arms[name])
    why = html.P(joined([*rest, story.noise[name]], "sentences", view.language))
    row = still(run, index, t)
    return shell.card(
        html.H2([swatch, shell.arm_title(view, name, run.spec.arms[index])]),
        None if row is None else canvas(index, view.say("compare.samples", arm=name), row),
        html.P(first),
        html.Details([html.Summary(view.say("compare.why")), why]),
        className="arm",
    )


def _table(view: View, now: dict[str, Any], step: int) -> Component:
    """The numbers of this step; the browser writes those of others into it."""
    body = [[name, *cells] for name, cells in zip(now["rows"], now["cells"][step], strict=True)]
    table = shell.table(body, now["head"])
    title = html.H2([view.say("compare.numbers"), " ", html.Span(className="now")])
    note = html.P(view.say("compare.range"), className="caption")
    return shell.card(title, html.Div(table, className="scrolls", tabIndex=0), note)


def _more(view: View, run: Run) -> Component:
    """The other plots, drawn when they are opened."""
    names = [name for name in MORE if name in pictures(run)]
    chips = dmc.ChipGroup(
        [dmc.Chip(view.text(f"figures.{name}.title"), value=name) for name in names],
        id=kept("plots"),
        multiple=True,
        value=[name for name in view.query.get("plots", "").split(",") if name in names],
    )
    return shell.card(chips, html.Div(id="more-plots"), title=view.say("compare.more"))


def _controls(view: View, run: Run, run_id: str, beside: str | None) -> Component:
    """The choice of runs, downloads, and a link with parts of the page hidden."""
    here = {name: name for name in shelf().runs}
    here.setdefault(run_id, f"{run.spec.denoiser}, n = {run.spec.n}")
    fitting = {one: label for one, label in here.items() if shelf().fits(run_id, one)}
    downloads = [
        html.A(
            view.say(f"compare.file.{kind.partition('.')[0]}"),
            href=f"/download/{run_id}/{kind}?lang={view.language}",
            download="",
            className="button quiet",
        )
        for kind in FILES
    ]
    hide = dmc.MultiSelect(
        id="hide",
        label=view.say("compare.hide"),
        data=shell.options({part: view.say(f"compare.part.{part}") for part in PARTS}),
        value=list(view.hidden),
        comboboxProps={"withinPortal": False},
    )
    link = dmc.TextInput(id="link", label=view.say("compare.link"), readOnly=True)
    copy = dcc.Clipboard(target_id="link", title=view.say("compare.copy"), className="copy")
    share = html.Summary(view.say("label.share"), className="button quiet")
    return shell.card(
        shell.select("run", view.say("label.run"), here, run_id),
        shell.select(
            "beside",
            view.say("label.beside"),
            fitting,
            beside,
            placeholder=view.say("compare.nothing"),
            clearable=True,
            disabled=not fitting,
        ),
        html.Div(downloads, className="files"),
        html.Details([share, html.Div([hide, link, copy])], className="share"),
        className="controls",
    )


@callback(
    Output("more-plots", "children"),
    Input(kept("plots"), "value"),
    State("which", "data"),
    State("_pages_location", "search"),
)
def more(names: list[str], which: dict[str, Any], search: str) -> list[Component]:
    """The plots that were asked for."""
    view = View.parse("compare", search)
    run = shelf().get(which["run"], which.get("beside"))
    chosen = [name for name in MORE if run is not None and name in names and name in pictures(run)]
    return [plot(view, run, name) for name in chosen]


@callback(Output("run", "data"), Input("mine", "data"), State("run", "data"))
def known(mine: list[dict[str, str]] | None, shown: list[dict[str, str]]) -> list[dict[str, str]]:
    """The runs to choose from, with those that this browser has recorded."""
    here = {one["value"] for one in shown}
    ready = [one for one in mine or [] if one["id"] not in here and shelf().exists(one["id"])]
    return [*shown, *shell.options({one["id"]: one["name"] for one in ready})]


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
