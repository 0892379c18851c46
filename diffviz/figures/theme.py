"""What all pictures have in common: colours, type, axes of time, panels. No statistics here.

A colour of an arm has a contrast of at least 3:1 on white and on the dark page, and differs from
the others for colour-blind readers; the dash differs as well. Backgrounds are transparent, so one
figure serves a light and a dark page, where only the colour of text changes (`themed`).

Every figure over time has t on its x axis, T at the left, and per axis one vertical line named
``cursor`` in ``layout.shapes``. ``layout.meta`` says so and holds two patches for
``Plotly.relayout``: ``narrow`` stacks the panels for a phone, ``wide`` puts them side by side.
"""

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.files.catalogue import text

Array = NDArray[np.float64]

CONFIG: dict[str, object] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "responsive": True,
    "scrollZoom": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    "toImageButtonOptions": {"format": "svg"},
}
"""The one configuration of every interactive figure: nothing is ever uploaded."""

COLOURS = ("#1a7fc4", "#d55e00", "#009e73", "#7d5cf5", "#d3153b")
DASHES = ("solid", "dash", "dashdot", "longdash")
REFERENCE = "#808080"
GRID = "rgba(128, 128, 128, 0.28)"
PAPER = {False: "#ffffff", True: "#16181d"}
TEXT = {False: "#1f2328", True: "#e6e8eb"}
FONTS = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'PingFang SC', "
    "'Microsoft YaHei', 'Noto Sans CJK SC', 'Source Han Sans SC', sans-serif"
)
SIZE = 14
NARROW = 720
"""Pages with less than this many pixels for a figure should apply ``layout.meta["narrow"]``."""

MAX_POINTS = 2000
PANEL, PANEL_STACKED = 300, 250
"""Height in pixels of one row of panels, and of each of several rows."""
LEGEND, BELOW = 50, 60
"""Pixels kept for the legend above and for the axis below."""


def colour(index: int) -> str:
    """The colour of the arm at ``index``."""
    return COLOURS[index % len(COLOURS)]


def dash(index: int) -> str:
    """Its dash; together with the colour it is unique among 20 arms."""
    return DASHES[index % len(DASHES)]


def label(name: str) -> str:
    """A name from outside, for plotly: no tag, no formula, and not longer than a legend bears."""
    short = name if len(name) <= 40 else name[:39] + "…"
    return html.escape(short, quote=False).replace("$", "&#36;")


def thin(*arrays: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """At most ``MAX_POINTS`` evenly spread points of each, along the last axis, ends kept."""
    n = arrays[0].shape[-1]
    if n <= MAX_POINTS:
        return list(arrays)
    index = np.unique(np.rint(np.linspace(0, n - 1, MAX_POINTS)).astype(int))
    return [array[..., index] for array in arrays]


# -------------------------------------------------------------------- panels


def panels(
    titles: Sequence[str],
    language: str,
    *,
    x_titles: Sequence[str] = (),
    y_titles: Sequence[str] = ("",),
    T: int | None = None,
    columns: int | None = None,
    common_y: bool = False,
    legend: bool = True,
) -> go.Figure:
    """Empty panels in rows of ``columns`` (all in one row unless given), one legend on top.

    With ``T`` the x axes are time, from T down to 0, each with its cursor at T. A title may have
    several lines; the first is strong. One title of an axis serves all panels.
    """
    n, columns = len(titles), columns or len(titles)
    lines = max(title.count("\n") + 1 if title else 0 for title in titles)
    figure = go.Figure(layout={"template": {}})
    figure.update_layout(
        autosize=True,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONTS, "size": SIZE, "color": TEXT[False]},
        showlegend=legend,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"size": SIZE},
            "bgcolor": "rgba(0,0,0,0)",
            "itemwidth": 40,
        },
        hovermode="closest",
        hoverlabel={"font": {"family": FONTS, "size": SIZE}, "namelength": -1},
        bargap=0.35,
    )
    x_titles = x_titles or [text("figures.common.time", language)]
    for i, title in enumerate(titles):
        x, y = _axis("x", i), _axis("y", i)
        figure.layout[x] = {
            "anchor": y.replace("axis", ""),
            "title": {"text": _broken(x_titles[i % len(x_titles)]), "standoff": 8}
            | {"font": {"size": SIZE}},
            "automargin": True,
        }
        figure.layout[y] = {
            "anchor": x.replace("axis", ""),
            "title": {"text": _broken(y_titles[i % len(y_titles)]), "standoff": 6}
            | {"font": {"size": SIZE}},
            "automargin": True,
        }
        if common_y and i:
            figure.layout[y].matches = "y"
        if T is not None:
            pad = 0.012 * T
            figure.layout[x].range = [T + pad, -pad]
            figure.layout[x].nticks = 6
            figure.add_shape(
                name="cursor",
                type="line",
                x0=T,
                x1=T,
                y0=0,
                y1=1,
                xref=x.replace("axis", ""),
                yref=y.replace("axis", "") + " domain",
                line={"color": REFERENCE, "width": 1.5},
            )
        if title:
            _head(figure, i, title)
    figure.update_xaxes(
        showgrid=False,
        zeroline=False,
        showline=True,
        linecolor=REFERENCE,
        ticks="outside",
        ticklen=4,
        tickcolor=REFERENCE,
    )
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, nticks=7, exponentformat="none")
    patches = {
        "wide": _arrangement(n, columns, lines, y_titles, common_y, legend),
        "narrow": _arrangement(n, 1, lines, y_titles, common_y, legend),
    }
    for key, value in patches["wide"].items():
        figure.layout[key] = value
    figure.layout.meta = {"time": T is not None, **patches}
    return figure


def _axis(letter: str, i: int) -> str:
    return f"{letter}axis{i + 1 if i else ''}"


def _broken(words: str) -> str:
    return words.replace("\n", "<br>")


def _head(figure: go.Figure, i: int, title: str) -> None:
    first, *rest = title.split("\n")
    words = "<br>".join([f"<b>{first}</b>", *rest])
    place = {"xref": f"{_axis('x', i)} domain", "yref": f"{_axis('y', i)} domain"}
    figure.add_annotation(
        text=words,
        x=0,
        y=1,
        xanchor="left",
        yanchor="bottom",
        align="left",
        yshift=6,
        showarrow=False,
        font_size=SIZE,
        **{key: value.replace("axis", "") for key, value in place.items()},
    )


def _arrangement(
    n: int, columns: int, lines: int, y_titles: Sequence[str], common_y: bool, legend: bool
) -> dict[str, object]:
    """Where each panel goes, as a patch for ``Plotly.relayout``."""
    rows = -(-n // columns)
    head = 20 * lines + 8
    above = head + (LEGEND if legend else 0)
    panel = PANEL if rows == 1 else PANEL_STACKED
    inner = rows * panel + (rows - 1) * (head + BELOW)
    patch: dict[str, object] = {
        "height": inner + above + BELOW,
        "legend.y": 1 + head / inner,
        "margin.t": above,
        "margin.b": BELOW,
        "margin.l": 12,
        "margin.r": 16,
    }
    tall = panel / inner
    step = tall + (head + BELOW) / inner
    shared = common_y and columns > 1
    gap = 0.035 if shared else 0.1 if columns > 1 else 0.0
    width = (1 - gap * (columns - 1)) / columns
    for i in range(n):
        row, column = divmod(i, columns)
        left, top = column * (width + gap), 1 - row * step
        patch[f"{_axis('x', i)}.domain"] = [left, min(left + width, 1.0)]
        patch[f"{_axis('y', i)}.domain"] = [max(top - tall, 0.0), top]
        first = column == 0 or not shared
        patch[f"{_axis('y', i)}.showticklabels"] = first
        patch[f"{_axis('y', i)}.title.text"] = (
            _broken(y_titles[i % len(y_titles)]) if first else ""
        )
    return patch


# -------------------------------------------------------------------- what is drawn on them


def add_curves(
    figure: go.Figure,
    panel: int,
    x: NDArray[np.generic],
    values: Array,
    arms: Sequence[str],
    language: str,
    *,
    error: Array | None = None,
    shape: str = "linear",
    hover: str = "t = %{x}",
) -> None:
    """One line per arm; ``values`` and ``error`` (half-width of a band) are (A, N).

    When there is no value at all, the panel says so.
    """
    if not np.isfinite(values).any():
        say(figure, panel, text("figures.common.nothing", language))
    for a, name in enumerate(arms):
        add_curve(
            figure,
            panel,
            x,
            values[a],
            name,
            a,
            error=None if error is None else error[a],
            shape=shape,
            hover=hover,
        )


def add_curve(
    figure: go.Figure,
    panel: int,
    x: NDArray[np.generic],
    values: Array,
    name: str,
    index: int,
    *,
    error: Array | None = None,
    shape: str = "linear",
    hover: str = "t = %{x}",
) -> None:
    """One line in the colour and the dash of the arm at ``index``; ``values``, ``error`` (N,)."""
    if error is not None and np.nanmax(error, initial=0) > 0:
        _band(figure, panel, x, values - error, values + error, name, index)
    across, up = thin(x, values)
    figure.add_scatter(
        x=across,
        y=up,
        mode="lines",
        name=label(name),
        legendgroup=name,
        line={"color": colour(index), "dash": dash(index), "width": 2.2, "shape": shape},
        hovertemplate=hover + "<br>%{fullData.name}: %{y:.3g}<extra></extra>",
        connectgaps=False,
        showlegend=_is_new(figure, name),
        **_on(panel),
    )


def add_reference(
    figure: go.Figure,
    panel: int,
    x: NDArray[np.generic],
    values: Array,
    name: str,
    *,
    hover: str = "t = %{x}",
    dash: str = "dot",
    filled: bool = False,
) -> None:
    """The dotted curve of what theory says, or the area below it; nothing where not known."""
    if not np.isfinite(values).any():
        return
    across, up = thin(x, values)
    figure.add_scatter(
        x=across,
        y=up,
        mode="lines",
        name=name,
        legendgroup=name,
        line={"color": REFERENCE, "dash": dash, "width": 2.2},
        fill="tozeroy" if filled else "none",
        fillcolor=GRID,
        hovertemplate=hover + "<br>%{fullData.name}: %{y:.3g}<extra></extra>",
        showlegend=_is_new(figure, name),
        legendrank=2000,
        **_on(panel),
    )


def add_level(figure: go.Figure, panel: int, level: float, name: str) -> None:
    """A dotted line across a panel whose x axis has no numbers, and its entry in the legend."""
    style = {"color": REFERENCE, "dash": "dot", "width": 2.2}
    x, y = _on(panel).values()
    figure.add_shape(
        type="line", xref=f"{x} domain", x0=0, x1=1, yref=y, y0=level, y1=level, line=style
    )
    figure.add_scatter(
        x=[None], y=[level], mode="lines", name=name, line=style, legendrank=2000, **_on(panel)
    )


def note(
    figure: go.Figure,
    panel: int,
    x: float,
    y: float,
    words: str,
    ink: str,
    align: tuple[str, str] = ("left", "bottom"),
) -> None:
    """A name written beside its curve; ``y`` is a logarithm on a logarithmic axis."""
    across, up = align
    figure.add_annotation(
        text=words,
        x=x,
        y=y,
        xanchor=across,
        yanchor=up,
        yshift={"bottom": 5, "top": -5}.get(up, 0),
        showarrow=False,
        font={"color": ink, "size": SIZE},
        xref=_on(panel)["xaxis"],
        yref=_on(panel)["yaxis"],
    )


def say(figure: go.Figure, panel: int, words: str) -> None:
    """A sentence in the middle of an empty panel."""
    figure.add_annotation(
        text=_broken(words),
        x=0.5,
        y=0.5,
        showarrow=False,
        xref=f"{_on(panel)['xaxis']} domain",
        yref=f"{_on(panel)['yaxis']} domain",
    )


def _band(
    figure: go.Figure,
    panel: int,
    x: NDArray[np.generic],
    low: Array,
    high: Array,
    name: str,
    a: int,
) -> None:
    known = np.isfinite(low)
    across, below, above = thin(x[known], low[known], high[known])
    figure.add_scatter(
        x=np.concatenate([across, across[::-1]]),
        y=np.concatenate([below, above[::-1]]),
        mode="lines",
        line_width=0,
        fill="toself",
        fillcolor=colour(a),
        opacity=0.25,
        name=label(name),
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
        **_on(panel),
    )


def _on(panel: int) -> dict[str, str]:
    number = str(panel + 1) if panel else ""
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def _is_new(figure: go.Figure, group: str) -> bool:
    return all(trace.legendgroup != group or trace.showlegend is False for trace in figure.data)


# -------------------------------------------------------------------- on a page of its own


def arranged(figure: go.Figure, narrow: bool) -> go.Figure:
    """A copy with its panels stacked, or side by side, as the patches in its meta say."""
    copy = go.Figure(figure)
    for path, value in copy.layout.meta["narrow" if narrow else "wide"].items():
        copy.layout[path] = value
    return copy


def themed(figure: go.Figure, dark: bool, title: str = "") -> go.Figure:
    """A copy for export: text and an opaque page in the colours of the theme, and a title."""
    copy = go.Figure(figure)
    copy.layout.font.color = TEXT[dark]
    copy.layout.paper_bgcolor = PAPER[dark]
    if title:
        copy.update_layout(
            title={"text": f"<b>{title}</b>", "x": 0, "xref": "paper", "xanchor": "left"}
            | {"yref": "container", "y": 1, "yanchor": "top", "pad_t": 16, "font_size": 20},
            margin_t=copy.layout.margin.t + 44,
            height=copy.layout.height + 44,
        )
    return copy
