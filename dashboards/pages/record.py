"""Record: order a run, watch it being made, and open it. The work is done in `dashboards.jobs`."""

import secrets
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, callback, dcc, html, no_update, register_page
from dash.development.base_component import Component

from dashboards import shell
from dashboards.jobs import FORMS, Jobs, follow
from dashboards.shelf import RECORDED, setting, shelf
from dashboards.shell import View
from diffviz.diffusion.schedule import KINDS
from diffviz.errors import InputError
from diffviz.files.catalogue import class_name
from diffviz.sprites.make import CLASSES

register_page(__name__, path="/record", name="record", title=shell.tab("nav.record"), order=6)

ARMS = ("ddpm", "z=0", "ddim", "ddpm/posterior", "ddpm*0.5", "ddpm*1.2", "ddim(eta=0.5)")
USUAL = {"gaussian": "2,0.5", "mixture": "-1,0.2,0.7;1.5,0.3,0.3"}
SAMPLES = {"network": 16, "sprites": 32, "gaussian": 4000, "mixture": 4000}


def jobs() -> Jobs:
    """The jobs of this application."""
    return setting("JOBS")


def order(name: Any) -> dict[str, Any]:
    """The id of a field of the form."""
    return {"type": "order", "name": name}


def layout(**query: Any) -> Component:
    """The form on the left, what is being recorded and what has been on the right."""
    view = View.read("record", query)
    return shell.page(
        view,
        shell.head(view),
        dcc.Store(id="order"),
        dcc.Store(id="finished"),
        dcc.Interval(id="tick", interval=3000),
        html.Div([_form(view), _progress(view)], className="two"),
    )


def _form(view: View) -> Component:
    def field(name: str) -> dict[str, Any]:
        return {"id": order(name), "label": view.say(f"record.{name}")}

    def number(name: str, low: int, high: int, **more: Any) -> Component:
        return dmc.NumberInput(**field(name), min=low, max=high, allowDecimal=False, **more)

    def beta(name: str) -> Component:
        usual = view.say("record.usual")
        return dmc.NumberInput(**field(name), min=0, max=1, step=0.001, placeholder=usual)

    def choice(name: str, labels: dict[str, str], usual: str) -> Component:
        return shell.select(
            **field(name), labels=labels, value=None, placeholder=usual, clearable=True
        )

    kinds = {kind: view.say(f"record.kind.{kind}") for kind in SAMPLES}
    kinds |= {kind: path.name for kind, path in jobs().files.items()}
    numbers = dmc.TextInput(
        **field("numbers"), description=view.say("record.numbers_help"), value=""
    )
    arms = dmc.TagsInput(
        **field("arms"),
        description=view.say("record.arms_help"),
        data=list(ARMS),
        value=list(ARMS[:3]),
        maxTags=8,
        clearable=True,
        clearButtonProps={"aria-label": view.say("record.clear")},
    )
    many = [
        number("n", 1, 1_000_000, value=SAMPLES["network"]),
        number("seed", 0, 2**32 - 1, value=0),
    ]
    classes = {name: class_name(name, view.language) for name in CLASSES}
    schedules = {kind: view.say(f"schedule.{kind}") for kind in KINDS}
    steps = [
        number("T", 1, 10_000, placeholder="500"),
        number("steps", 1, 10_000, placeholder=view.say("record.all_steps")),
        beta("beta_start"),
        beta("beta_end"),
    ]
    rest = [
        choice("label", classes, view.say("record.every_class")),
        choice("schedule", schedules, view.say("record.own")),
        html.Div(steps, className="pair"),
    ]
    more = dmc.AccordionItem(
        [dmc.AccordionControl(view.say("record.more")), dmc.AccordionPanel(rest)], value="more"
    )
    begin = dmc.Button(
        view.say("record.begin"), id="begin", size="md", fullWidth=True, disabled=True
    )
    return shell.card(
        shell.select(**field("denoiser"), labels=kinds, value="network"),
        html.Div(numbers, id="numbers-row"),
        arms,
        html.Div(many, className="pair"),
        dmc.Accordion(more, chevronPosition="left"),
        html.P(id="price", role="status"),
        begin,  # enabled by the first answer of `price`: a click before it would be lost
        className="form",
    )


def _progress(view: View) -> Component:
    idle = html.P(view.say("record.idle"), id="status", role="status")
    cancel = dmc.Button(view.say("record.cancel"), id="cancel", variant="default", disabled=True)
    going = shell.card(
        html.Div([idle, cancel], className="row"),
        dmc.Progress(id="progress", value=0, **{"aria-label": view.say("record.progress")}),
        html.Div(id="live-images"),
        html.Div(id="live"),
        html.Div(id="ready"),
    )
    note = html.P(view.say("record.yours_note"), className="lead")
    own = html.Ul(id="own", className="own")
    return html.Div(
        [going, shell.card(note, own, title=view.say("record.yours"))], className="plots"
    )


@callback(
    Output("numbers-row", "hidden"),
    Output(order("numbers"), "value"),
    Output(order("n"), "value"),
    Input(order("denoiser"), "value"),
)
def kind_chosen(kind: str) -> tuple[bool, str, int]:
    """Numbers only for laws that are given by numbers; a usual number of samples."""
    return kind not in FORMS, USUAL.get(kind, ""), SAMPLES.get(kind, 16)


@callback(
    Output("price", "children"),
    Output("begin", "disabled"),
    Input(order(ALL), "value"),
    State(order(ALL), "id"),
    State("_pages_location", "search"),
)
def price(values: list[Any], ids: list[dict[str, str]], search: str) -> tuple[str, bool]:
    """What the form would cost, or what is wrong with it."""
    view = View.parse("record", search)
    try:
        request = jobs().request(_form_of(values, ids))
    except InputError as error:
        return view.say("record.refused", line=error), True
    seconds, memory = request.estimate()
    time = (
        view.say("record.seconds", n=max(5, round(seconds / 5) * 5))
        if seconds < 100
        else view.say("record.minutes", n=round(seconds / 60))
    )
    size = f"{memory / 2**30:.1f} GB"
    return view.say("record.cost", time=time, memory=size, arms=len(request.arms)), False


@callback(
    Output("order", "data"),
    Output("mine", "data"),
    Input("begin", "n_clicks"),
    State(order(ALL), "value"),
    State(order(ALL), "id"),
    State("mine", "data"),
    prevent_initial_call=True,
)
def begin(
    n_clicks: int, values: list[Any], ids: list[dict[str, str]], mine: list[dict[str, str]] | None
) -> tuple[Any, Any]:
    """Give the recording an id that nobody can guess, and remember it in this browser."""
    if not n_clicks:
        return no_update, no_update
    form, run_id = _form_of(values, ids), secrets.token_urlsafe(18)
    request = jobs().request(form)
    name = f"{(request.denoiser or 'network')[:40]}, n = {request.n}, seed {request.seed}"
    return {"id": run_id, "form": form}, [*(mine or []), {"id": run_id, "name": name}][-30:]


@callback(
    Output("finished", "data"),
    Output("ready", "children"),
    Input("order", "data"),
    State("_pages_location", "search"),
    background=True,
    interval=500,
    progress=[
        Output("status", "children"),
        Output("progress", "value"),
        Output("live", "children"),
        Output("live-images", "children"),
    ],
    running=[
        (Output("cancel", "disabled"), False, True),
        (Output("begin", "loading"), True, False),
    ],
    cancel=[Input("cancel", "n_clicks")],
    prevent_initial_call=True,
)
def record(tell: Any, order: dict[str, Any], search: str) -> tuple[Any, Any]:
    """Record in the background, and show how it goes."""
    view, run_id = View.parse("record", search), order["id"]
    if not RECORDED.fullmatch(run_id) or shelf().exists(run_id):
        return no_update, no_update
    live: list[Any] = [None, None]

    def show(state: dict[str, Any]) -> None:
        # Progress is a state of its own: what is left out would be taken off the page.
        if state.get("figure"):
            live[0] = shell.graph(state["figure"], "live")
        if state.get("images"):
            live[1] = html.Img(src=state["images"], alt=view.say("record.now"))
        written = state["state"] in ("writing", "done")
        share = 100 if written else round(100 * state.get("done", 0) / state.get("total", 1))
        values = {name: state[name] for name in ("before", "line") if name in state}
        tell((view.say(f"record.state.{state['state']}", share=share, **values), share, *live))

    ended = follow(jobs(), run_id, order["form"], view.language, show)["state"]
    opened = shell.button(view.say("record.open"), view.href("compare", run=run_id))
    return {"id": run_id, "state": ended}, opened if ended == "done" else None


@callback(
    Output("status", "children", allow_duplicate=True),
    Input("cancel", "n_clicks"),
    State("_pages_location", "search"),
    prevent_initial_call=True,
)
def cancelled(n_clicks: int, search: str) -> Any:
    """Say that it was cancelled."""
    return View.parse("record", search).say("record.state.cancelled") if n_clicks else no_update


@callback(
    Output("own", "children"),
    Input("mine", "data"),
    Input("tick", "n_intervals"),
    State("_pages_location", "search"),
)
def own(mine: list[dict[str, str]] | None, _: Any, search: str) -> list[Component]:
    """The recordings of this browser, the newest first."""
    view, rows = View.parse("record", search), []
    for one in reversed(mine or []):
        if shelf().exists(one["id"]):
            file = html.A(
                view.say("compare.file.run"),
                href=f"/download/{one['id']}/run.nc",
                className="button quiet",
                download="",
            )
            rest = [
                shell.button(view.say("record.open"), view.href("compare", run=one["id"])),
                file,
            ]
        else:
            known = jobs().cache.get(f"state-{one['id']}") or {}
            going = known.get("pid") in jobs().line()
            rest = [html.Span(view.say("record.going" if going else "record.gone"))]
        rows.append(html.Li([html.Span(one["name"]), html.Span(rest, className="files")]))
    return rows


def _form_of(values: list[Any], ids: list[dict[str, str]]) -> dict[str, Any]:
    return {one["name"]: value for one, value in zip(ids, values, strict=True)}
