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
from diffviz.sprites.make import CLASSES

register_page(__name__, path="/record", name="record", title="diffviz: record", order=6)

ARMS = ("ddpm", "z=0", "ddim", "ddpm/posterior", "ddpm*0.5", "ddpm*1.2", "ddim(eta=0.5)")
USUAL = {"gaussian": "2,0.5", "mixture": "-1,0.2,0.7;1.5,0.3,0.3"}
SAMPLES = {"network": 16, "sprites": 32, "gaussian": 4000, "mixture": 4000}


def jobs() -> Jobs:
    """Those of the application that answers."""
    return setting("JOBS")


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
        return {"id": {"type": "order", "name": name}, "label": view.say(f"record.{name}")}

    def number(name: str, **more: Any) -> Component:
        return dmc.NumberInput(**field(name), allowDecimal=False, **more)

    def beta(name: str) -> Component:
        usual = view.say("record.usual")
        return dmc.NumberInput(**field(name), min=0, max=1, step=0.001, placeholder=usual)

    kinds = [*SAMPLES, *jobs().files]
    labels = [
        jobs().files[kind].name if kind in jobs().files else view.say(f"record.kind.{kind}")
        for kind in kinds
    ]
    return dmc.Card(
        [
            dmc.Select(
                **field("denoiser"),
                data=[{"value": k, "label": v} for k, v in zip(kinds, labels, strict=True)],
                value="network",
                allowDeselect=False,
            ),
            html.Div(
                dmc.TextInput(
                    **field("numbers"), description=view.say("record.numbers_help"), value=""
                ),
                id="numbers-row",
            ),
            dmc.TagsInput(
                **field("arms"),
                description=view.say("record.arms_help"),
                data=list(ARMS),
                value=list(ARMS[:3]),
                maxTags=8,
                clearable=True,
                clearButtonProps={"aria-label": view.say("record.clear")},
            ),
            html.Div(
                [
                    number("n", min=1, max=1_000_000, value=SAMPLES["network"]),
                    number("seed", min=0, max=2**32 - 1, value=0),
                ],
                className="pair",
            ),
            dmc.Accordion(
                dmc.AccordionItem(
                    [
                        dmc.AccordionControl(view.say("record.more")),
                        dmc.AccordionPanel(
                            [
                                dmc.Select(
                                    **field("label"),
                                    data=[
                                        {"value": c, "label": view.say(f"record.class.{c}")}
                                        for c in CLASSES
                                    ],
                                    placeholder=view.say("record.every_class"),
                                    clearable=True,
                                ),
                                dmc.Select(
                                    **field("schedule"),
                                    data=[
                                        {"value": k, "label": view.say(f"schedule.{k}")}
                                        for k in KINDS
                                    ],
                                    placeholder=view.say("record.own"),
                                    clearable=True,
                                ),
                                html.Div(
                                    [
                                        number("T", min=1, max=10_000, placeholder="500"),
                                        number(
                                            "steps",
                                            min=1,
                                            max=10_000,
                                            placeholder=view.say("record.all_steps"),
                                        ),
                                        beta("beta_start"),
                                        beta("beta_end"),
                                    ],
                                    className="pair",
                                ),
                            ]
                        ),
                    ],
                    value="more",
                ),
                chevronPosition="left",
            ),
            html.P(id="price", role="status"),
            dmc.Button(view.say("record.begin"), id="begin", size="md", fullWidth=True),
        ],
        withBorder=True,
        className="form",
    )


def _progress(view: View) -> Component:
    return html.Div(
        [
            dmc.Card(
                [
                    html.Div(
                        [
                            html.P(view.say("record.idle"), id="status", role="status"),
                            dmc.Button(
                                view.say("record.cancel"),
                                id="cancel",
                                variant="default",
                                disabled=True,
                            ),
                        ],
                        className="row",
                    ),
                    dmc.Progress(
                        id="progress", value=0, **{"aria-label": view.say("record.progress")}
                    ),
                    html.Div(id="live-images"),
                    html.Div(id="live"),
                    html.Div(id="ready"),
                ],
                withBorder=True,
            ),
            dmc.Card(
                [
                    dmc.Title(view.say("record.yours"), order=2),
                    html.P(view.say("record.yours_note"), className="lead"),
                    html.Ul(id="own", className="own"),
                ],
                withBorder=True,
            ),
        ],
        className="plots",
    )


@callback(
    Output("numbers-row", "hidden"),
    Output({"type": "order", "name": "numbers"}, "value"),
    Output({"type": "order", "name": "n"}, "value"),
    Input({"type": "order", "name": "denoiser"}, "value"),
)
def kind_chosen(kind: str) -> tuple[bool, str, int]:
    """Numbers only for laws that are given by numbers; a usual number of samples."""
    return kind not in FORMS, USUAL.get(kind, ""), SAMPLES.get(kind, 16)


@callback(
    Output("price", "children"),
    Output("begin", "disabled"),
    Input({"type": "order", "name": ALL}, "value"),
    State({"type": "order", "name": ALL}, "id"),
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
    State({"type": "order", "name": ALL}, "value"),
    State({"type": "order", "name": ALL}, "id"),
    State("mine", "data"),
    prevent_initial_call=True,
)
def begin(
    n_clicks: int, values: list[Any], ids: list[dict[str, str]], mine: list[dict[str, str]] | None
) -> tuple[Any, Any]:
    """Give the recording an id that nobody can guess, and remember it in this browser."""
    if not n_clicks:
        return no_update, no_update
    form = _form_of(values, ids)
    request = jobs().request(form)
    what = request.denoiser or "network"
    name = f"{what[:40]}, n = {request.n}, seed {request.seed}"
    order = {"id": secrets.token_urlsafe(18), "form": form}
    return order, [*(mine or []), {"id": order["id"], "name": name}][-30:]


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
    view = View.parse("record", search)
    run_id = order["id"]
    if not RECORDED.fullmatch(run_id) or shelf().path(run_id).exists():  # type: ignore[union-attr]
        return no_update, no_update

    live: Any = None
    strip: Any = None

    def show(state: dict[str, Any]) -> None:
        # Progress is a state of its own: what is left out would be taken off the page.
        nonlocal live, strip
        if state.get("figure"):
            live = shell.graph(state["figure"], "live")
        if state.get("images"):
            strip = html.Img(src=state["images"], alt=view.say("record.now"))
        share = 100 * state.get("done", 0) / state.get("total", 1)
        share = 100 if state["state"] in ("writing", "done") else share
        words = view.say(f"record.state.{state['state']}", share=round(share), **_fields(state))
        tell((words, share, live, strip))

    ended = follow(jobs(), run_id, order["form"], view.language, show)
    opened = (
        shell.button(view.say("record.open"), view.href("compare", run=run_id))
        if ended["state"] == "done"
        else None
    )
    return {"id": run_id, "state": ended["state"]}, opened


@callback(
    Output("status", "children", allow_duplicate=True),
    Input("cancel", "n_clicks"),
    State("_pages_location", "search"),
    prevent_initial_call=True,
)
def cancelled(n_clicks: int, search: str) -> Any:
    """Say so."""
    return View.parse("record", search).say("record.state.cancelled") if n_clicks else no_update


@callback(
    Output("own", "children"),
    Input("mine", "data"),
    Input("tick", "n_intervals"),
    State("_pages_location", "search"),
)
def own(mine: list[dict[str, str]] | None, _: Any, search: str) -> list[Component]:
    """The recordings of this browser, the newest first."""
    view = View.parse("record", search)
    rows = []
    for one in reversed(mine or []):
        path = shelf().path(one["id"])
        if path is not None and path.exists():
            rest = [
                shell.button(view.say("record.open"), view.href("compare", run=one["id"])),
                html.A(
                    view.say("compare.file.run"),
                    href=f"/download/{one['id']}/run.nc",
                    className="button quiet",
                    download="",
                ),
            ]
        else:
            known = jobs().cache.get(f"state-{one['id']}") or {}
            going = known.get("pid") in jobs().line()
            rest = [html.Span(view.say("record.going" if going else "record.gone"))]
        rows.append(html.Li([html.Span(one["name"]), html.Span(rest, className="files")]))
    return rows


def _form_of(values: list[Any], ids: list[dict[str, str]]) -> dict[str, Any]:
    return {one["name"]: value for one, value in zip(ids, values, strict=True)}


def _fields(state: dict[str, Any]) -> dict[str, Any]:
    return {name: state[name] for name in ("before", "line") if name in state}
