"""The Record page as Dash components; ``assets/5-record.js`` fills it in and keeps it moving."""

from dash import html
from dash.development.base_component import Component

from dashboards.layout import _head, _input, both

SETS = ("three", "dial", "eta")
"""Sets of arms that are one click away."""


def record_page() -> html.Section:
    """The section of the page: the form on the left, jobs on the right."""
    return html.Section(
        [
            _head("record"),
            html.P(id="record-lost", className="notice bad", role="alert", hidden=True),
            html.Div([_form(), _jobs()], className="record"),
        ],
        hidden=True,
        **{"data-page": "record"},
    )


def _row(name: str, *parts: Component, place: str | None = None) -> html.Label:
    """A visible label above its control."""
    marks = {"id": place} if place else {}
    return html.Label(
        [html.Span(both(f"dashboard.record.{name}"), className="label"), *parts],
        className="row",
        **marks,
    )


def _group(name: str, *parts: Component) -> html.Fieldset:
    return html.Fieldset([html.Legend(both(f"dashboard.record.{name}")), *parts])


def _form() -> html.Form:
    return html.Form(
        [
            _group(
                "denoiser_group",
                _row("denoiser", html.Select(id="order-denoiser")),
                _row("data", _input("order-data", type="text"), place="order-data-row"),
                html.P(id="order-about", className="note"),
                _row("class", html.Select(id="order-class"), place="order-class-row"),
            ),
            _group(
                "schedule_group",
                _row("plan", html.Select(id="order-plan")),
                html.Div(
                    [
                        _row("length", _number("length", "1", "10000", "1")),
                        _row("start", _number("start", "0", "1", "any")),
                        _row("end", _number("end", "0", "1", "any")),
                    ],
                    className="rows",
                ),
            ),
            _group(
                "arms_group",
                html.Div(id="order-arms"),
                html.Div(
                    [
                        html.Button(
                            ["+ ", *both("dashboard.record.add")], type="button", id="order-add"
                        ),
                        *(
                            html.Button(
                                both(f"dashboard.record.set.{name}"),
                                type="button",
                                className="quiet",
                                **{"data-arms": name},
                            )
                            for name in SETS
                        ),
                    ],
                    className="tries",
                ),
            ),
            _group(
                "samples_group",
                html.Div(
                    [
                        _row("n", _number("n", "1", "1000000", "1")),
                        _row("seed", _number("seed", "0", "4294967295", "1")),
                        _row("steps", _number("steps", "1", "10000", "1")),
                    ],
                    className="rows",
                ),
            ),
            html.Div(
                [
                    html.P(id="order-wrong", role="alert", hidden=True),
                    html.P(id="order-cost", role="status"),
                    html.Button(both("dashboard.record.begin"), type="submit", id="order-begin"),
                ],
                className="order-end",
            ),
        ],
        id="order",
        className="card",
    )


def _number(name: str, low: str, high: str, step: str) -> html.Span:
    return _input(f"order-{name}", type="number", min=low, max=high, step=step)


def _jobs() -> html.Div:
    return html.Div(
        [
            html.Div(
                [
                    html.H2(both("dashboard.record.none_title")),
                    html.P(both("dashboard.record.none")),
                ],
                id="no-jobs",
                className="notice",
            ),
            html.Div(
                [
                    html.Div(
                        [
                            html.Div(
                                [
                                    html.H2(id="job-name"),
                                    html.P(
                                        [
                                            html.Span(id="job-state", role="status"),
                                            html.Span(id="job-left", className="num"),
                                        ],
                                        id="job-line",
                                    ),
                                ]
                            ),
                            html.Div(id="job-tools"),
                        ],
                        className="job-head",
                    ),
                    html.Progress(
                        id="job-progress",
                        max="1",
                        value="0",
                        **{"data-label": "progress", "aria-label": "Progress"},
                    ),
                    html.Div(className="plot", id="live-plot"),
                    html.P(both("figures.live.caption"), className="note", id="live-note"),
                ],
                id="job",
                className="card",
                hidden=True,
            ),
            html.Div(
                [
                    html.H2(both("dashboard.record.yours")),
                    html.P(both("dashboard.record.yours_note"), className="note"),
                    html.Ul(id="jobs"),
                ],
                id="own-jobs",
                className="card",
                hidden=True,
            ),
        ],
        className="record-right",
    )
