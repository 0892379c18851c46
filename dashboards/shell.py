"""What every page has around it: theme, header, navigation, language; and the parts pages share.

A page is a function of its address. ``View.read`` takes the query apart; links to other pages and
other settings come from ``View.href``; so deep links, the back button and reload need no code. A
control whose value belongs into the address has the id ``kept(name)``, and that is all it needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

import dash
import dash_mantine_components as dmc
import flask
import plotly.graph_objects as go
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component

from diffviz.diffusion.rules import noise_kept
from diffviz.figures import theme
from diffviz.files.catalogue import LANGUAGES, text

THEMES = ("light", "dark")
KEPT = ("lang", "theme", "big", "hide")
"""What goes along from page to page."""
BLUE = "#e7f2fb #cfe3f5 #9cc6ea #66a8df #3a8fd5 #1f7fcc #1468ab #10578f #0d4672 #083453"
DARK = "#e6e8eb #c9ced3 #a9b1b9 #7d858d #363b42 #2b3037 #16181d #0f1114 #0b0c0e #060708"
THEME = {
    "primaryColor": "azure",
    "primaryShade": 6,
    # Mantine draws dark cards in the seventh, as figures are drawn, and the page in the eighth.
    "colors": {"azure": BLUE.split(), "dark": DARK.split()},
    "fontFamily": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', "
    "'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif",
    "cursorType": "pointer",
}


@dataclass(frozen=True)
class View:
    """What an address says.

    Attributes:
        page: name of the page, as it is registered.
        query: the whole query, as text.
    """

    page: str
    query: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, page: str, query: Mapping[str, Any]) -> "View":
        """From the arguments that Dash gives a layout; whatever is no short text is dropped."""
        return cls(page, {k: v for k, v in query.items() if isinstance(v, str) and len(v) <= 400})

    @classmethod
    def parse(cls, page: str, search: str | None) -> "View":
        """From the query string of an address, as callbacks have it."""
        return cls.read(page, dict(parse_qsl((search or "").removeprefix("?"))))

    @property
    def language(self) -> str:
        """English unless the address says otherwise."""
        return self.get("lang", LANGUAGES, LANGUAGES[0])

    @property
    def theme(self) -> str:
        """Light unless the address says otherwise."""
        return self.get("theme", THEMES, THEMES[0])

    @property
    def big(self) -> bool:
        """Type for a projector."""
        return self.query.get("big") == "1"

    @property
    def narrow(self) -> bool:
        """A phone, as the browser says in its cookie (``assets/pages.js``)."""
        return flask.has_request_context() and flask.request.cookies.get("narrow") == "1"

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

    def text(self, key: str, **values: object) -> str:
        """A text of any topic in the language of the page."""
        return text(key, self.language, **values)

    def say(self, key: str, **values: object) -> str:
        """The text ``dashboard.<key>`` in the language of the page."""
        return text(f"dashboard.{key}", self.language, **values)

    def href(self, page: str | None = None, **changes: object) -> str:
        """The address of another page, or of this one with some values changed; None takes out."""
        kept = {k: v for k, v in self.query.items() if page is None or k in KEPT} | changes
        query = urlencode({k: str(v) for k, v in kept.items() if v is not None})
        path = pages()[page or self.page]
        return f"{path}?{query}" if query else path


def pages(linked: bool = False) -> dict[str, str]:
    """The path of every page by its name; only those of the navigation, which have an order."""
    found = dash.page_registry.values()
    return {p["name"]: p["path"] for p in found if p["order"] is not None or not linked}


def tab(key: str) -> Callable[..., str]:
    """The title of the browser's tab, ``dashboard.<key>`` in the language of the address."""

    def title(**_: str) -> str:
        if flask.request.is_json:  # the page is asked for by a callback
            view = View.parse(key, dash.ctx.inputs.get("_pages_location.search"))
        else:
            view = View.read(key, flask.request.args)
        return f"{view.say(key)} · diffviz"

    return title


def page(view: View, *children: Component | None) -> dmc.MantineProvider:
    """A whole page."""
    said = {"language": view.language, "page": view.page, "big": view.big}
    main = html.Div(
        [child for child in children if child is not None],
        id="main",
        className=f"page page-{view.page}",
        lang="zh-CN" if view.language == "zh" else "en",
        tabIndex=-1,
    )
    hidden = "nav" in view.hidden
    frame = dmc.AppShell(
        [dmc.AppShellHeader(html.Div() if hidden else _header(view)), dmc.AppShellMain(main)],
        header={"height": 0 if hidden else {"base": 92, "md": 56}},
        padding="md",
    )
    return dmc.MantineProvider(
        [
            dcc.Location(id="go", refresh="callback-nav"),
            dcc.Store(id="mine", storage_type="local", data=[]),
            dcc.Store(id="view", data=said),
            *(
                html.Div(view.say(f"label.{name}"), className=f"trouble {name}", role="alert")
                for name in ("gone", "failed")
            ),
            frame,
        ],
        forceColorScheme=view.theme,
        theme=THEME,
    )


def _header(view: View) -> Component:
    links = [
        dcc.Link(
            view.say(f"nav.{name}"),
            href=view.href(name, run=view.query.get("run")),
            className="nav-link here" if name == view.page else "nav-link",
        )
        for name in pages(linked=True)
    ]
    other = LANGUAGES[1 - LANGUAGES.index(view.language)]
    dark = view.theme == "dark"
    light = view.say("label.light" if dark else "label.dark")
    size = view.say("label.normal_type" if view.big else "label.big_type")
    settings = [
        ("中文" if other == "zh" else "English", {"lang": other}),
        (light, {"theme": THEMES[not dark]}),
        (size, {"big": None if view.big else 1}),
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


def register(app: Dash) -> None:
    """The callbacks that every page needs: its language and theme, and its address."""
    app.clientside_callback(
        ClientsideFunction("diffviz", "view"),
        Output("view", "modified_timestamp"),
        Input("view", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("diffviz", "keep"),
        Output("main", "title"),
        Input(kept(ALL), "value"),
        State(kept(ALL), "id"),
        prevent_initial_call=True,
    )


# --------------------------------------------------------------- parts of a page


def kept(name: Any) -> dict[str, Any]:
    """The id of a control whose value the browser keeps in the address, under ``name``."""
    return {"type": "kept", "name": name}


def head(view: View) -> html.Header:
    """Title and first sentence of a page."""
    lead = dmc.Text(view.say(f"{view.page}.lead"), className="lead")
    title = dmc.Title(view.say(f"{view.page}.title"), order=1)
    return html.Header([title, lead], className="head")


def card(*children: Component | None, title: str = "", className: str = "") -> dmc.Card:
    """A box with a title."""
    titles = [dmc.Title(title, order=2)] if title else []
    inside = [*titles, *(child for child in children if child is not None)]
    return dmc.Card(inside, withBorder=True, className=className)


def options(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Choices of a control, from value → label."""
    return [{"value": value, "label": label} for value, label in labels.items()]


def select(
    id: Any, label: str, labels: Mapping[str, str], value: str | None, **more: Any
) -> dmc.Select:
    """A choice among ``labels``, value → label; always one unless it is ``clearable``."""
    more = {"allowDeselect": "clearable" in more} | more
    return dmc.Select(id=id, label=label, data=options(labels), value=value, **more)


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> html.Table:
    """Words in rows, each with its name first, below the names of the columns."""
    names = html.Tr([html.Td(), *(html.Th(name, scope="col") for name in head)])
    body = [html.Tr([html.Th(name, scope="row"), *map(html.Td, cells)]) for name, *cells in rows]
    inside = [html.Thead(names if head else None), html.Tbody(body)]
    return html.Table(inside, className="numbers num")


def graph(figure: Any, name: str) -> dcc.Graph:
    """A figure that can be zoomed, read by hover and saved as PNG; nothing is ever uploaded."""
    height = figure["layout"].get("height") if isinstance(figure, dict) else figure.layout.height
    saved = {"format": "png", "filename": f"diffviz-{name}", "scale": 2}
    return dcc.Graph(
        id={"type": "plot", "name": name},
        figure=figure,
        config=theme.CONFIG | {"toImageButtonOptions": saved, "displayModeBar": True},
        responsive=True,
        style={"height": f"{height or 360}px"},
    )


def dressed(figure: go.Figure, view: View) -> go.Figure:
    """A figure that is not of a run in the theme of the page, and in its size of type."""
    return theme.dressed(figure, view.theme, view.big, view.narrow)


def arm_title(view: View, name: str, spec: Mapping[str, Any]) -> str:
    """An arm in words: its rule, and whether it keeps its noise."""
    rule, scale = str(spec["rule"]), float(spec["noise_scale"])
    if noise_kept(rule) == 0:
        return view.say("arm.ddim", name=name)
    how = "with" if scale == 1 else "without" if scale == 0 else "scaled"
    return view.say(f"arm.{how}", name=name, scale=f"{scale:g}")


def lost_noise(arms: Sequence[Mapping[str, Any]]) -> int | None:
    """The first arm whose rule draws noise that is left out."""
    for i, arm in enumerate(arms):
        if float(arm["noise_scale"]) == 0 and noise_kept(str(arm["rule"])):
            return i
    return None


def notice(title: str, words: str, *more: Component, color: str = "azure") -> dmc.Alert:
    """An empty or failed state: what it is, and what to do."""
    return dmc.Alert([dmc.Text(words), *more], title=title, color=color, className="notice")


def button(words: str, href: str) -> dcc.Link:
    """A link that looks like a button."""
    return dcc.Link(words, href=href, className="button")
