"""What all figures share: the template, the colours of the arms, panels, and what stands in them.

A figure over time has t on its x axes, with T at the left. ``layout.meta`` holds

- ``time_axes``: the names of these axes ("x", "x2", …); a page lays its cursor over them,
- ``wide`` and ``narrow``: two patches for ``Plotly.relayout``. ``narrow`` stacks the panels for a
  page with less than ``NARROW`` pixels of width, ``wide`` puts them side by side again.

There are no statistics here.
"""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

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
"""The configuration of every figure on a page. Nothing is ever uploaded.

Give the element of a figure its height (``layout.height``): with ``responsive`` plotly takes the
size of the element whenever the window changes, and an element without a height has none.
"""

COLOURS = (
    "#1a7fc4",
    "#d55e00",
    "#009e73",
    "#7d5cf5",
    "#d3153b",
    "#8a7a00",
    "#c03fc0",
    "#8c6040",
    "#2a8f9c",
    "#e5488b",
)
"""Of the arms. Each has a contrast of at least 3 : 1 on the light page and on the dark one."""
DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot", "6px 2px 2px 2px", "3px 3px")
"""Of the arms' lines. 7 dashes and 10 colours give 70 arms that differ; "dot" is the reference."""
REFERENCE = "#808080"
GRID = "rgba(128, 128, 128, 0.28)"
CLEAR = "rgba(0, 0, 0, 0)"
PAPER = {"light": "#ffffff", "dark": "#16181d"}
TEXT = {"light": "#1f2328", "dark": "#e6e8eb"}
FONTS = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'PingFang SC', "
    "'Microsoft YaHei', 'Noto Sans CJK SC', 'Source Han Sans SC', sans-serif"
)
SIZE, LARGE, WIDTH = 14, 20, 2.2
"""Of the type, also for the back row of a lecture room, and of the lines."""
NARROW = 720
"""A page with fewer pixels than this for a figure applies ``layout.meta["narrow"]``."""
MAX_POINTS = 2000
PANEL, PANEL_STACKED = 300, 250
"""Height in pixels of one row of panels, and of each of several rows."""
LEGEND, BELOW = 50, 60
"""Pixels for the legend above and for the axis below."""


def _template(theme: str, size: int = SIZE) -> go.layout.Template:
    axis = {"title": {"standoff": 8, "font": {"size": size}}, "automargin": True}
    x_axis = {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": REFERENCE,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": REFERENCE,
    }
    y_axis = {"gridcolor": GRID, "zerolinecolor": GRID, "nticks": 7, "exponentformat": "none"}
    words = {"family": FONTS, "size": size}
    return go.layout.Template(
        layout={
            "font": {**words, "color": TEXT[theme]},
            "paper_bgcolor": PAPER[theme],
            "plot_bgcolor": CLEAR,
            "colorway": COLOURS,
            "hovermode": "closest",
            "hoverlabel": {"font": words, "namelength": -1},
            "bargap": 0.35,
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": size},
                "bgcolor": CLEAR,
                "itemwidth": 40,
            },
            "annotationdefaults": {"showarrow": False, "font": {"size": size}},
            "xaxis": axis | x_axis,
            "yaxis": axis | y_axis,
        }
    )


TEMPLATES = {theme: _template(theme) for theme in ("light", "dark")}
"""One template a theme. Only the page and the words differ, so a page changes it by relayout."""


def colour(index: int) -> str:
    """The colour of the arm at ``index``."""
    return COLOURS[index % len(COLOURS)]


def dash(index: int) -> str:
    """The dash of its line."""
    return DASHES[index % len(DASHES)]


def label(name: str) -> str:
    """A name from outside, for plotly: no tag, no formula, at most 40 letters."""
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

    With ``T`` the x axes are time, from T down to 0. A title may have several lines; the first is
    strong. One title of an axis serves all panels.
    """
    n, columns = len(titles), columns or len(titles)
    lines = max(title.count("\n") + 1 if title else 0 for title in titles)
    figure = _grid(n, columns, lines, common_y, legend)
    figure.update_layout(template=TEMPLATES["light"], showlegend=legend)
    x_titles = x_titles or [text("figures.common.time", language)]
    for i, title in enumerate(titles):
        x, y = axes(i)
        figure.layout[_key(x)].title.text = _lines(x_titles[i % len(x_titles)])
        if common_y and i:
            figure.layout[_key(y)].matches = "y"
        if T is not None:
            pad = 0.012 * T
            figure.layout[_key(x)].update(range=[T + pad, -pad], nticks=6)
        if title:
            # Plotly drops a line that is blank; one that is kept for a legend has a hard space.
            first, *rest = (line.strip() or "\u00a0" for line in title.split("\n"))
            figure.add_annotation(
                text="<br>".join([f"<b>{first}</b>", *rest]),
                **{"x": 0, "y": 1, "xref": f"{x} domain", "yref": f"{y} domain"},
                **{"xanchor": "left", "yanchor": "bottom", "align": "left", "yshift": 6},
            )
    narrow = _grid(n, 1, lines, common_y, legend)
    figure.layout.meta = {
        "time_axes": [] if T is None else [axes(i)[0] for i in range(n)],
        "wide": _patch(figure, columns, y_titles, common_y),
        "narrow": _patch(narrow, 1, y_titles, common_y),
    }
    return arranged(figure, "wide")


def axes(panel: int) -> tuple[str, str]:
    """The names of the axes of a panel, as a trace gives them: x and y, x2 and y2."""
    number = str(panel + 1) if panel else ""
    return f"x{number}", f"y{number}"


def _key(axis: str) -> str:
    return f"{axis[0]}axis{axis[1:]}"


def _lines(words: str) -> str:
    return words.replace("\n", "<br>")


def _grid(n: int, columns: int, lines: int, common_y: bool, legend: bool) -> go.Figure:
    """``n`` panels in rows of ``columns``, with room for titles of ``lines`` lines."""
    rows = -(-n // columns)
    head = 20 * lines + 8
    panel = PANEL if rows == 1 else PANEL_STACKED
    inner = rows * panel + (rows - 1) * (head + BELOW)
    above = head + (LEGEND if legend else 0)
    figure = make_subplots(
        rows,
        columns,
        specs=[[{} if r * columns + c < n else None for c in range(columns)] for r in range(rows)],
        horizontal_spacing=0.035 if common_y else 0.1,
        vertical_spacing=(head + BELOW) / inner,
    )
    return figure.update_layout(
        height=inner + above + BELOW,
        legend_y=1 + head / inner,
        margin={"t": above, "b": BELOW, "l": 12, "r": 16},
    )


def _patch(
    grid: go.Figure, columns: int, y_titles: Sequence[str], common_y: bool
) -> dict[str, object]:
    """The arrangement of ``grid`` as a patch for ``Plotly.relayout``."""
    patch: dict[str, object] = {
        "height": grid.layout.height,
        "legend.y": grid.layout.legend.y,
        "margin.t": grid.layout.margin.t,
    }
    for i in range(len(list(grid.select_xaxes()))):
        x, y = map(_key, axes(i))
        first = i % columns == 0 or not common_y
        patch[f"{x}.domain"] = list(grid.layout[x].domain)
        patch[f"{y}.domain"] = list(grid.layout[y].domain)
        patch[f"{y}.showticklabels"] = first
        patch[f"{y}.title.text"] = _lines(y_titles[i % len(y_titles)]) if first else ""
    return patch


def arranged(figure: go.Figure, width: str) -> go.Figure:
    """The same figure with its panels as the patch ``width`` (wide or narrow) says."""
    patch: Mapping[str, object] = figure.layout.meta[width]
    for path, value in patch.items():
        figure.layout[path] = value
    return figure


def dressed(figure: go.Figure, theme: str, large: bool = False, narrow: bool = False) -> go.Figure:
    """The same figure in a theme; with large type and lines; with its panels in one column."""
    figure.update_layout(template=_template(theme, LARGE) if large else TEMPLATES[theme])
    if large:
        for trace in figure.data:
            for part, name, factor in (("line", "width", 1.6), ("marker", "size", 1.5)):
                drawn = getattr(trace, part, None)
                if isinstance(value := getattr(drawn, name, None), int | float):
                    setattr(drawn, name, factor * value)
    stacks = narrow and "narrow" in (figure.layout.meta or {})
    return arranged(figure, "narrow") if stacks else figure


# -------------------------------------------------------------------- what stands in them


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
) -> None:
    """One line per arm; ``values`` and ``error`` (half-width of a band) are (A, N).

    When there is no value at all, the panel says so.
    """
    if not np.isfinite(values).any():
        say(figure, panel, text("figures.common.nothing", language))
    for a, name in enumerate(arms):
        around = None if error is None else error[a]
        add_curve(figure, panel, x, values[a], name, a, error=around, shape=shape)


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
) -> None:
    """One line in the colour and the dash of the arm at ``index``; ``values``, ``error`` (N,)."""
    if error is not None and np.nanmax(error, initial=0) > 0:
        add_band(figure, panel, x, values - error, values + error, name, colour(index), name)
    style = {"color": colour(index), "dash": dash(index), "width": WIDTH, "shape": shape}
    _line(figure, panel, x, values, label(name), name, style)


def add_reference(
    figure: go.Figure,
    panel: int,
    x: NDArray[np.generic],
    values: Array,
    name: str,
    *,
    dash: str = "dot",
    filled: bool = False,
) -> None:
    """The dotted curve of what theory says, or the area below it; nothing where not known."""
    if not np.isfinite(values).any():
        return
    style = {"color": REFERENCE, "dash": dash, "width": WIDTH}
    _line(figure, panel, x, values, name, name, style)
    figure.data[-1].update(
        legendrank=2000, fill="tozeroy" if filled else "none", fillcolor=GRID if filled else None
    )


def add_band(
    figure: go.Figure,
    panel: int,
    x: NDArray[np.generic],
    low: Array,
    high: Array,
    name: str,
    ink: str = REFERENCE,
    group: str | None = None,
) -> None:
    """The area between two curves (N,); in the legend, unless it goes with a ``group``."""
    known = np.isfinite(low) & np.isfinite(high)
    across, below, above = thin(x[known], low[known], high[known])
    x_axis, y_axis = axes(panel)
    figure.add_scatter(
        x=np.concatenate([across, across[::-1]]),
        y=np.concatenate([below, above[::-1]]),
        mode="lines",
        line_width=0,
        fill="toself",
        fillcolor=ink,
        opacity=0.25,
        name=label(name),
        legendgroup=group or name,
        legendrank=3000,
        showlegend=group is None and _is_new(figure, name),
        hoverinfo="skip",
        xaxis=x_axis,
        yaxis=y_axis,
    )


def add_level(figure: go.Figure, panel: int, level: float, name: str) -> None:
    """A dotted line across a panel whose x axis has no numbers, and its entry in the legend."""
    style = {"color": REFERENCE, "dash": "dot", "width": WIDTH}
    x, y = axes(panel)
    figure.add_shape(
        type="line", xref=f"{x} domain", x0=0, x1=1, yref=y, y0=level, y1=level, line=style
    )
    figure.add_scatter(
        x=[None], y=[level], mode="lines", name=name, line=style, legendrank=2000, xaxis=x, yaxis=y
    )


def own_legend(figure: go.Figure, panel: int, above: bool = False) -> None:
    """A legend for one panel alone: in its lower left corner, or on its title's second line."""
    (x, y), name = axes(panel), f"legend{panel + 2}"
    for key in ("wide", "narrow"):
        across, up = (figure.layout.meta[key][f"{_key(axis)}.domain"] for axis in (x, y))
        figure.layout.meta[key] |= {f"{name}.x": across[0], f"{name}.y": up[above]}
    place = {"orientation": "h" if above else "v", "xanchor": "left", "yanchor": "bottom"}
    figure.layout[name] = {**place, "bgcolor": CLEAR}
    figure.update_traces(legend=name, showlegend=True, selector={"xaxis": x})
    arranged(figure, "wide")


def add_cursor(figure: go.Figure, t: int) -> None:
    """A vertical line at ``t`` on every axis of time, for a still picture."""
    for x in figure.layout.meta["time_axes"]:
        figure.add_shape(
            name="cursor",
            type="line",
            **{"x0": t, "x1": t, "y0": 0, "y1": 1, "xref": x, "yref": f"y{x[1:]} domain"},
            line={"color": REFERENCE, "width": 1.5},
        )


def say(figure: go.Figure, panel: int, words: str) -> None:
    """A sentence in the middle of an empty panel."""
    x, y = axes(panel)
    place = {"x": 0.5, "y": 0.5, "xref": f"{x} domain", "yref": f"{y} domain"}
    figure.add_annotation(text=_lines(words), **place)


def _line(
    figure: go.Figure,
    panel: int,
    x: NDArray[np.generic],
    y: NDArray[np.generic],
    name: str,
    group: str,
    style: Mapping[str, object],
) -> None:
    """One line; the first of a group stands in the legend."""
    x_axis, y_axis = axes(panel)
    hover = "t = %{x}" if x_axis in figure.layout.meta["time_axes"] else "%{x:.4~g}"
    across, up = thin(x, y)
    figure.add_scatter(
        x=across,
        y=up,
        mode="lines",
        name=name,
        legendgroup=group,
        line=style,
        hovertemplate=hover + "<br>%{fullData.name}: %{y:.3g}<extra></extra>",
        connectgaps=False,
        showlegend=_is_new(figure, group),
        xaxis=x_axis,
        yaxis=y_axis,
    )


def _is_new(figure: go.Figure, group: str) -> bool:
    """Whether nothing of the group stands in the legend yet."""
    return all(t.legendgroup != group or t.showlegend is False for t in figure.data)
