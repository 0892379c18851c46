"""The page as Dash components. It holds no numbers: the scripts in ``assets`` fill it in.

Every text stands in every language, and the page shows one. What Dash has no component for, an
``<input>`` without wrapping, is a marked place that the first script fills.
"""

from collections.abc import Sequence

from dash import dcc, html
from dash.development.base_component import Component

from dashboards.pages import LARGEST_T, STORES
from dashboards.payload import PLOTS
from diffviz.files.catalogue import LANGUAGES, text
from diffviz.report.embedding import TAGS

NAMES = {"en": "English", "zh": "中文"}
PAGES = {
    "compare": "/",
    "dial": "/dial",
    "schedule": "/schedule",
    "xray": "/xray",
    "record": "/record",
}
SETTINGS = {"ddpm": (1.0, 1.0), "flow": (0.0, 0.5), "mistake": (0.0, 1.0)}


def both(key: str) -> list[html.Span]:
    """A text of the catalogue in every language."""
    return [
        html.Span(text(key, code), className=f"in-{code}", lang=TAGS[code]) for code in LANGUAGES
    ]


def page(*more: Component) -> html.Div:
    """The whole page, with the sections ``more`` after those of this module."""
    return html.Div(
        [
            html.A(both("dashboard.nav.skip"), href="#main", className="skip"),
            _header(),
            html.Main(
                [_compare(), _dial(), _schedule(), _xray(), *more], id="main", tabIndex="-1"
            ),
            _player(),
            *(dcc.Store(id=name) for name in STORES),
        ],
        id="page",
    )


def _header() -> html.Header:
    return html.Header(
        [
            html.P("diffviz", className="brand"),
            html.Nav(
                [
                    html.A(both(f"dashboard.nav.{name}"), href=path, **{"data-go": name})
                    for name, path in PAGES.items()
                ],
                **_labelled("pages"),
            ),
            html.Div(
                [
                    html.Div(
                        [
                            html.Button(
                                NAMES[code],
                                type="button",
                                lang=TAGS[code],
                                **{"data-set-language": code, "aria-pressed": "false"},
                            )
                            for code in LANGUAGES
                        ],
                        className="pair",
                        role="group",
                        **_labelled("language"),
                    ),
                    _icon("projector", "Aa"),
                    _icon("theme", "◐"),
                ],
                className="switches",
            ),
        ],
        className="top",
    )


def _icon(name: str, sign: str) -> html.Button:
    return html.Button(
        html.Span(sign, **{"aria-hidden": "true"}),
        id=name,
        type="button",
        className="icon",
        **{**_labelled(name), "aria-pressed": "false"},
    )


def _labelled(name: str) -> dict[str, str]:
    return {"data-label": name, "aria-label": text(f"dashboard.label.{name}", LANGUAGES[0])}


def _head(name: str, beside: Sequence[Component] = ()) -> html.Div:
    words = [
        html.H1(both(f"dashboard.{name}.title")),
        html.P(both(f"dashboard.{name}.lead"), className="lead"),
    ]
    return html.Div([html.Div(words), *beside], className="head")


def _field(name: str, *parts: Component) -> html.Label:
    """A visible label and its control."""
    return html.Label(
        [html.Span(both(f"dashboard.label.{name}"), className="label"), *parts], className="field"
    )


def _input(name: str, **attributes: str) -> html.Span:
    """The place of an ``<input>``; ``label`` is the key of its name for those who do not see."""
    marks = {f"data-{key.replace('label', 'named')}": v for key, v in attributes.items()}
    return html.Span(className="slot", **{"data-input": name, **marks})


# ------------------------------------------------------------------ compare


def _compare() -> html.Section:
    return html.Section(
        [
            _head(
                "compare",
                [
                    html.Div(
                        [_field(name, html.Select(id=name)) for name in ("run", "beside")],
                        className="choose-run",
                    )
                ],
            ),
            html.P(
                [
                    html.Span(both("dashboard.compare.loading"), className="while"),
                    html.Span(both("dashboard.live.failed"), className="instead"),
                ],
                id="loading",
                className="notice",
                role="status",
            ),
            html.P(id="failure", className="notice bad", role="alert", hidden=True),
            html.Div(
                [
                    html.H2(both("dashboard.compare.none_title")),
                    html.P(both("dashboard.compare.none")),
                    html.Pre(
                        "diffviz record --denoiser dataset:sprites --n 16 --out run.nc\n"
                        "diffviz dashboard run.nc"
                    ),
                ],
                id="no-run",
                className="notice",
                hidden=True,
            ),
            html.Div(
                [
                    html.Div(
                        [
                            html.P(id="image-time", className="num"),
                            html.P(both("dashboard.compare.click"), id="click-hint"),
                            _field("arm", html.Select(id="arm")),
                            _field("follow", html.Select(id="follow")),
                            html.Div(
                                [
                                    html.Button(
                                        both(f"dashboard.compare.{kind}"),
                                        type="button",
                                        **{"data-range": kind, "aria-pressed": "false"},
                                    )
                                    for kind in ("fixed", "stretched")
                                ],
                                className="pair",
                                id="ranges",
                                role="group",
                                **_labelled("range"),
                            ),
                        ],
                        className="tools",
                    ),
                    html.P(id="few", className="note warn", hidden=True),
                    html.Div(id="arms"),
                    html.P(
                        both("dashboard.compare.fixed_note"),
                        className="note",
                        **{"data-when": "fixed"},
                    ),
                    html.P(
                        both("dashboard.compare.stretched_note"),
                        className="note warn",
                        hidden=True,
                        **{"data-when": "stretched"},
                    ),
                    html.Div(
                        [
                            html.H2(id="film-title"),
                            html.Div(id="films"),
                            html.P(both("dashboard.compare.film_hint"), className="note"),
                        ],
                        id="followed",
                        hidden=True,
                    ),
                    html.Div(
                        [_plot(name) for name in ("trajectories", *PLOTS)],
                        id="plots",
                    ),
                    html.P(both("dashboard.compare.keys"), className="note keys"),
                ],
                id="run-view",
                hidden=True,
            ),
        ],
        **{"data-page": "compare"},
    )


def _plot(name: str) -> html.Figure:
    return html.Figure(
        [
            html.H2(both(f"figures.{name}.title")),
            html.Div(className="plot", **{"data-figure": name}),
            html.P(className="says", **{"data-says": name}),
            html.Details(
                [
                    html.Summary(both("dashboard.compare.caption")),
                    html.P(both(f"figures.{name}.caption")),
                ]
            ),
        ],
        className=f"card {'wide' if name in ('trajectories', 'ks', 'stds') else ''}",
        **{"data-card": name},
    )


def _player() -> html.Div:
    return html.Div(
        [
            html.Button(
                html.Span("▶", **{"aria-hidden": "true"}),
                id="play",
                type="button",
                **_labelled("play"),
            ),
            html.Output(id="time", className="num"),
            html.Div(_input("step", label="step", type="range"), className="track"),
            html.Select(
                [
                    html.Option(f"{sign}×", value=value)
                    for sign, value in zip("¼½124", ("0.25", "0.5", "1", "2", "4"), strict=True)
                ],
                id="speed",
                **_labelled("speed"),
            ),
        ],
        id="player",
        role="region",
        hidden=True,
        **_labelled("player"),
    )


# ------------------------------------------------------------------ noise dial


def _dial() -> html.Section:
    choices = [
        html.Button(
            both(f"dashboard.dial.{law}"),
            type="button",
            **{"data-law": law, "aria-pressed": "false"},
        )
        for law in ("gaussian", "mixture")
    ]
    settings = [
        html.Button(
            both(f"dashboard.dial.{name}"),
            type="button",
            className=f"try {name}",
            **{"data-noise": str(noise), "data-score": str(score)},
        )
        for name, (noise, score) in SETTINGS.items()
    ]
    numbers = [
        html.Div(
            [html.Dt(both(f"dashboard.dial.{name}")), html.Dd(id=f"number-{name}")],
            id=f"number-{name}-row",
        )
        for name in ("std", "std_right", "share", "asked")
    ]
    return html.Section(
        [
            _head(
                "dial",
                [html.Div(choices, className="pair", role="group", **_labelled("law"))],
            ),
            html.Div(
                [
                    html.Div(
                        [
                            html.Div(
                                [
                                    html.Div(
                                        id="pad",
                                        role="application",
                                        tabIndex="0",
                                        **_labelled("pad"),
                                    ),
                                    html.P(both("dashboard.dial.balance"), className="note"),
                                ]
                            ),
                            html.Div(
                                [
                                    _slider("noise", "0", "1.5"),
                                    _slider("score", "0.5", "1"),
                                    html.Div(settings, className="tries"),
                                ]
                            ),
                            html.Div(
                                [
                                    html.P(id="verdict", role="status"),
                                    html.Dl(numbers, className="numbers"),
                                ]
                            ),
                        ],
                        className="desk",
                    ),
                    html.Div(className="plot", id="dial-plot"),
                    html.P(both("figures.density.caption"), className="note"),
                ],
                className="card",
            ),
        ],
        hidden=True,
        **{"data-page": "dial"},
    )


def _slider(name: str, low: str, high: str) -> html.Div:
    place = _input(name, label=name, type="range", min=low, max=high, step="0.05")
    return html.Div(
        [
            html.Span(both(f"dashboard.label.{name}"), className="label"),
            html.Output(id=f"{name}-value", className="num"),
            place,
        ],
        className="slider",
    )


# ------------------------------------------------------------------ schedule


def _schedule() -> html.Section:
    return html.Section(
        [
            _head("schedule"),
            html.Div(
                [
                    _field("kind", html.Select(id="kind")),
                    _field(
                        "steps", _input("T", type="number", min="1", max=str(LARGEST_T), step="1")
                    ),
                    _field("first", _input("first", type="number", min="0", max="1", step="any")),
                    _field("last", _input("last", type="number", min="0", max="1", step="any")),
                ],
                className="card tools form",
            ),
            html.P(id="schedule-wrong", className="notice bad", role="alert", hidden=True),
            html.Div(
                [
                    html.H2(both("dashboard.schedule.forward")),
                    html.Div(id="sprites", role="radiogroup", **_labelled("sprites")),
                    html.Div(id="forward"),
                    html.P(both("dashboard.schedule.forward_note"), className="note"),
                ],
                className="card answer",
            ),
            html.Div(
                [
                    html.H2(both("dashboard.schedule.checks")),
                    html.Table(
                        [
                            html.Thead(
                                html.Tr(
                                    [
                                        html.Th(both(f"dashboard.schedule.{name}"), scope="col")
                                        for name in ("check", "result")
                                    ]
                                )
                            ),
                            html.Tbody(id="checks"),
                        ]
                    ),
                ],
                className="card answer",
            ),
            html.Div(
                [
                    html.H2(both("figures.schedule.title")),
                    html.Div(className="plot", id="schedule-plot"),
                    html.P(both("figures.schedule.caption"), className="note"),
                ],
                className="card answer",
            ),
        ],
        hidden=True,
        **{"data-page": "schedule"},
    )


# ------------------------------------------------------------------ x-ray


def _xray() -> html.Section:
    return html.Section(
        [
            _head("xray"),
            html.Div(
                [
                    html.Div(id="loops", className="card loops"),
                    html.Div(
                        [
                            html.Div(
                                [
                                    html.H2(id="loop-title"),
                                    html.P(id="loop-text"),
                                    html.Pre(
                                        id="loop-code",
                                        tabIndex="0",
                                        role="region",
                                        **_labelled("code"),
                                    ),
                                    html.P(both("dashboard.xray.given"), className="note"),
                                ],
                                className="card",
                            ),
                            html.Div(
                                [
                                    html.H2(both("dashboard.xray.verdict")),
                                    html.Div(id="loop-verdict", role="status"),
                                ],
                                className="card",
                            ),
                            html.Div(
                                [
                                    html.Div(
                                        [
                                            html.H2(both("dashboard.xray.pictures")),
                                            html.P(
                                                both("dashboard.xray.exact_note"),
                                                className="note",
                                            ),
                                            html.Div(id="loop-pictures", className="pictures"),
                                            html.P(
                                                both("dashboard.xray.network_note"),
                                                className="note",
                                            ),
                                            html.Div(id="network-pictures", className="pictures"),
                                        ],
                                        className="card",
                                    ),
                                    *(
                                        html.Figure(
                                            [
                                                html.H2(both(f"figures.{name}.title")),
                                                html.Div(className="plot", **{"data-xray": name}),
                                                html.P(
                                                    both(f"figures.{name}.caption"),
                                                    className="note",
                                                ),
                                            ],
                                            className="card",
                                        )
                                        for name in ("xray", "xray_noise")
                                    ),
                                ],
                                id="loop-seen",
                            ),
                        ],
                        className="seen",
                    ),
                ],
                className="zoo",
            ),
        ],
        hidden=True,
        **{"data-page": "xray"},
    )
