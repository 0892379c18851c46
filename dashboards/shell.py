"""What every page has around it: theme, header, navigation, language; and the parts pages share.

A page is a function of its address. ``View.read`` takes the query apart; links to other pages and
other settings come from ``View.href``; so deep links, the back button and reload need no code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import ClientsideFunction, Dash, Input, Output, dcc, html
from dash.development.base_component import Component

from dashboards.shelf import enlarged
from diffviz.figures.theme import CONFIG, PAPER, TEMPLATES
from diffviz.files.catalogue import LANGUAGES, text

PAGES = {
    "compare": "/",
    "guess": "/guess",
    "play": "/play",
    "dial": "/dial",
    "schedule": "/schedule",
    "xray": "/xray",
    "record": "/record",
}
"""Paths in the order of the navigation."""
THEMES = ("light", "dark")
KEPT = ("lang", "theme", "big", "hide")
"""What goes along from page to page."""
PRIMARY = ["#e7f2fb", "#cfe3f5", "#9cc6ea", "#66a8df", "#3a8fd5", "#1f7fcc", "#1468ab", "#10578f"]
PRIMARY += ["#0d4672", "#083453"]
DARK = ["#e6e8eb", "#c9ced3", "#a9b1b9", "#7d858d", "#363b42", "#2b3037", PAPER["dark"], "#0f1114"]
DARK += ["#0b0c0e", "#060708"]
"""Mantine draws cards in the seventh, as figures are drawn, and the page in the eighth."""


@dataclass(frozen=True)
class View:
    """What an address says.

    Attributes:
        page: name of the page, a key of ``PAGES``.
        query: the whole query, as text.
    """

    page: str
    query: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, page: str, query: dict[str, Any]) -> "View":
        """From the arguments that Dash gives a layout; whatever is no short text is dropped."""
        kept = {k: v for k, v in query.items() if isinstance(v, str) and len(v) <= 400}
        return cls(page, kept)

    @property
    def language(self) -> str:
        """English unless the address says otherwise."""
        asked = self.query.get("lang", "")
        return asked if asked in LANGUAGES else LANGUAGES[0]

    @property
    def theme(self) -> str:
        """Light unless the address says otherwise."""
        return "dark" if self.query.get("theme") == "dark" else "light"

    @property
    def big(self) -> bool:
        """Type for a projector."""
        return self.query.get("big") == "1"

    @property
    def hidden(self) -> tuple[str, ...]:
        """Parts of the page that the address hides, for a lecture."""
        return tuple(part for part in self.query.get("hide", "").split(",") if part)

    def get(self, name: str, allowed: Sequence[str], usual: str) -> str:
        """One of the ``allowed`` values of ``name``."""
        value = self.query.get(name, usual)
        return value if value in allowed else usual

    def number(self, name: str, low: float, high: float, usual: float) -> float:
        """A number from the query, in range."""
        try:
            value = float(self.query.get(name, ""))
        except ValueError:
            return usual
        return value if low <= value <= high else usual

    @classmethod
    def parse(cls, page: str, search: str | None) -> "View":
        """From the query string of an address, as callbacks have it."""
        return cls.read(page, dict(parse_qsl((search or "").removeprefix("?"))))

    def text(self, key: str, **values: object) -> str:
        """A text of any topic in the language of the page."""
        return text(key, self.language, **values)

    def say(self, key: str, **values: object) -> str:
        """The text ``dashboard.<key>`` in the language of the page."""
        return text(f"dashboard.{key}", self.language, **values)

    def href(self, page: str | None = None, **changes: object) -> str:
        """The address of another page, or of this one with some values changed."""
        kept = {k: v for k, v in self.query.items() if page is None or k in KEPT}
        kept |= {k: str(v) for k, v in changes.items() if v is not None}
        kept = {k: v for k, v in kept.items() if not (k in changes and changes[k] is None)}
        path = PAGES[page or self.page]
        return f"{path}?{urlencode(kept)}" if kept else path


def page(view: View, *children: Component | None) -> dmc.MantineProvider:
    """A whole page."""
    return dmc.MantineProvider(
        [
            dcc.Location(id="go", refresh="callback-nav"),
            dcc.Store(id="mine", storage_type="local", data=[]),
            dcc.Store(
                id="view", data={"language": view.language, "page": view.page, "big": view.big}
            ),
            dmc.AppShell(
                [
                    dmc.AppShellHeader(_header(view)),
                    dmc.AppShellMain(
                        html.Div(
                            [child for child in children if child is not None],
                            id="main",
                            className=f"page page-{view.page}",
                            lang="zh-CN" if view.language == "zh" else "en",
                            tabIndex=-1,
                        )
                    ),
                ],
                header={"height": 0 if "nav" in view.hidden else {"base": 92, "md": 56}},
                padding="md",
            ),
        ],
        forceColorScheme=view.theme,
        theme={
            "primaryColor": "azure",
            "primaryShade": {"light": 6, "dark": 6},
            "colors": {"azure": PRIMARY, "dark": DARK},
            "fontFamily": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', "
            "'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif",
            "cursorType": "pointer",
        },
    )


def _header(view: View) -> Component:
    if "nav" in view.hidden:
        return html.Div()
    links = [
        dcc.Link(
            view.say(f"nav.{name}"),
            href=view.href(name, run=view.query.get("run")),
            className="nav-link here" if name == view.page else "nav-link",
        )
        for name in PAGES
    ]
    other = LANGUAGES[1 - LANGUAGES.index(view.language)]
    dark = view.theme == "dark"
    settings = [
        ("中文" if other == "zh" else "English", {"lang": other}),
        (view.say("label.light" if dark else "label.dark"), {"theme": THEMES[not dark]}),
        (
            view.say("label.normal_type" if view.big else "label.big_type"),
            {"big": None if view.big else 1},
        ),
    ]
    return html.Div(
        [
            html.A(view.say("nav.skip"), href="#main", className="skip"),
            dcc.Link("diffviz", href=view.href("compare"), className="brand"),
            html.Nav(links, **{"aria-label": view.say("label.pages")}),  # type: ignore[arg-type]
            html.Div(
                [
                    dcc.Link(words, href=view.href(**changes), className="setting")
                    for words, changes in settings
                ],
                className="settings",
            ),
        ],
        className="header",
    )


def head(view: View) -> html.Header:
    """Title and first sentence of a page."""
    return html.Header(
        [
            dmc.Title(view.say(f"{view.page}.title"), order=1),
            dmc.Text(view.say(f"{view.page}.lead"), className="lead"),
        ],
        className="head",
    )


def graph(figure: Any, name: str, **more: Any) -> dcc.Graph:
    """A figure that can be zoomed, read by hover and saved as PNG; nothing is ever uploaded."""
    height = figure["layout"].get("height") if isinstance(figure, dict) else figure.layout.height
    options = {"format": "png", "filename": f"diffviz-{name}", "scale": 2}
    return dcc.Graph(
        id={"type": "plot", "name": name},
        figure=figure,
        config=CONFIG | {"toImageButtonOptions": options, "displayModeBar": True},
        responsive=True,
        style={"height": f"{height or 360}px"},
        **more,
    )


def dressed(figure: go.Figure, view: View) -> go.Figure:
    """A figure that is not of a run in the theme of the page, and in its size of type."""
    return enlarged(figure.update_layout(template=TEMPLATES[view.theme]), view.big)


def arm_title(view: View, name: str, spec: dict[str, Any]) -> str:
    """An arm in words: its rule, and whether it keeps its noise."""
    rule, scale = str(spec["rule"]), float(spec["noise_scale"])
    if rule in ("ddim", "ddim(eta=0)"):
        return view.say("arm.ddim", name=name)
    how = "with" if scale == 1 else "without" if scale == 0 else "scaled"
    return view.say(f"arm.{how}", name=name, scale=f"{scale:g}")


def notice(title: str, words: str, *more: Component, color: str = "azure") -> dmc.Alert:
    """An empty or failed state: what it is, and what to do."""
    return dmc.Alert([dmc.Text(words), *more], title=title, color=color, className="notice")


def button(words: str, href: str, **more: Any) -> dcc.Link:
    """A link that looks like a button."""
    return dcc.Link(words, href=href, className=f"button {more.pop('className', '')}", **more)


def register(app: Dash) -> None:
    """The callback that every page needs: language of the document, end of what a page started."""
    app.clientside_callback(
        ClientsideFunction("diffviz", "view"),
        Output("view", "modified_timestamp"),
        Input("view", "data"),
    )
