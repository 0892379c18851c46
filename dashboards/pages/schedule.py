"""Schedule: how fast the signal drowns, which invariants hold, and what is left to see.

The simplest page: controls, one callback, a figure. Read it first.
"""

from functools import lru_cache
from typing import Any

import dash_mantine_components as dmc
import numpy as np
from dash import Input, Output, State, callback, html, register_page
from dash.development.base_component import Component
from numpy.typing import NDArray

from dashboards import shell
from dashboards.shell import View, kept
from diffviz.diffusion.forward import ForwardData, forward_data
from diffviz.diffusion.schedule import KINDS, NoiseSchedule
from diffviz.errors import InputError
from diffviz.figures.schedule import schedule_figure
from diffviz.files.images import data_uri, from_uint8, to_uint8
from diffviz.sprites.make import make_sprites

register_page(
    __name__, path="/schedule", name="schedule", title=shell.tab("nav.schedule"), order=4
)

LARGEST_T = 4000
SPRITES, OFFERED = 200, 12
"""Sprites that there are, and those of them that can be chosen."""
SHOWN = 10
"""Times of the forward process that are shown."""
FAIR = 0.1
"""√ᾱ_T up to this is called a fair start."""
SURE, LIKELY = 0.99, 0.5
"""Probability of the right sprite from which it is named, or named with a doubt."""
LAWS = {"bar0": "ᾱ_0", "beta": "β_t", "product": "ᾱ_t = ᾱ", "falling": "ᾱ_t <"}
"""What must hold, and how the schedule's line begins where it does not."""


def layout(**query: Any) -> Component:
    """Controls, the curves, the checks, and one sprite on its way into the noise."""
    view = View.read("schedule", query)
    kinds = {kind: view.say(f"schedule.{kind}") for kind in KINDS}
    sprites = {str(i): view.say("schedule.sprite_i", i=i + 1) for i in range(OFFERED)}
    chosen = str(int(view.number("sprite", 0, OFFERED - 1, 0)))

    def number(name: str, value: float, **more: Any) -> Component:
        label = view.say(f"schedule.{name}")
        return dmc.NumberInput(id=kept(name), label=label, value=value, **more)

    def beta(name: str, usual: float) -> Component:
        value = view.number(name, 0, 1, usual)
        return number(name, value, min=0, max=1, step=0.001, decimalScale=6)

    T = int(view.number("T", 1, LARGEST_T, 500))
    controls = shell.card(
        shell.select(
            kept("kind"), view.say("schedule.kind"), kinds, view.get("kind", KINDS, "linear")
        ),
        number("T", T, min=1, max=LARGEST_T, allowDecimal=False),
        beta("first", 1e-4),
        beta("last", 0.02),
        shell.select(kept("sprite"), view.say("schedule.sprite"), sprites, chosen),
        className="controls",
    )
    return shell.page(view, shell.head(view), controls, html.Div(id="schedule"))


@callback(
    Output("schedule", "children"),
    *(Input(kept(name), "value") for name in ("kind", "T", "first", "last", "sprite")),
    State("_pages_location", "search"),
)
def drawn(kind: Any, T: Any, first: Any, last: Any, sprite: Any, search: str) -> Any:
    """Everything but the controls, or what is wrong with them."""
    view = View.parse("schedule", search)
    try:
        if not isinstance(T, int) or T > LARGEST_T:
            raise InputError(f"T is {T!r:.40}; allowed are the integers 1…{LARGEST_T}")
        ends = (None, None) if kind == "cosine" else (first, last)
        made = NoiseSchedule.named(str(kind), T, *ends)
    except InputError as error:
        return shell.notice(view.say("schedule.wrong"), str(error), color="orange")
    index = int(sprite) % OFFERED if str(sprite).isdecimal() else 0
    figure = shell.dressed(schedule_figure(made, view.language), view)
    note = html.P(view.say("schedule.forward_note"), className="caption")
    return [
        shell.card(note, _film(view, made, index), title=view.say("schedule.forward")),
        shell.card(shell.graph(figure, "schedule")),
        shell.card(_checks(view, made), title=view.say("schedule.checks")),
    ]


def _film(view: View, made: NoiseSchedule, index: int) -> Component:
    """One sprite at ``SHOWN`` times, and who could still tell which it was."""
    times = np.unique(np.rint(made.T * np.linspace(0, 1, SHOWN)).astype(int))
    data = forward_data(made, from_uint8(_sprites()), index, times, seed=index)
    pictures = []
    for i, (t, picture) in enumerate(zip(times, to_uint8(data.x), strict=True)):
        lines = [html.B(f"t = {t}"), f"ᾱ = {data.alpha_bar[i]:.3g}", _guess(view, data, i)]
        words = html.Figcaption([html.Div(line) for line in lines])
        pictures.append(html.Figure([html.Img(src=data_uri(picture), alt=f"t = {t}"), words]))
    return html.Div(pictures, className="film")


def _guess(view: View, data: ForwardData, i: int) -> str:
    if data.sure[i] >= LIKELY:
        return view.say("schedule.sure" if data.sure[i] >= SURE else "schedule.likely")
    left = round(float(data.candidates[i]))
    return view.say("schedule.few" if left < SPRITES / 10 else "schedule.nobody", n=left)


def _checks(view: View, made: NoiseSchedule) -> Component:
    """Every invariant, and whether it holds; how much signal is left at T."""
    broken = made.violations()
    rows = []
    for name, start in LAWS.items():
        said = next((line for line in broken if line.startswith(start)), None)
        result = view.say("schedule.holds") if said is None else f"✗ {said}"
        rows.append((view.say(f"schedule.law.{name}"), result))
    root = float(np.sqrt(made.alpha_bars[-1]))
    key = "schedule.fair" if root <= FAIR else "schedule.unfair"
    rows.append((view.say("schedule.left"), view.say(key, value=f"{root:.3g}")))
    return shell.table(rows)


@lru_cache(maxsize=1)
def _sprites() -> NDArray[np.uint8]:
    return make_sprites(SPRITES)[0]
