"""The lessons in a few sentences each: where a plot on another page leads to."""

from typing import Any

from dash import html, register_page
from dash.development.base_component import Component

from dashboards import shell
from dashboards.shell import View

register_page(__name__, path="/lesson", name="lesson", title=shell.tab("lesson.title"))

FILES = ("1-noising", "2-sampling", "3-experiment", "4-measuring", "5-why", "6-training", "7-fast")


def layout(**query: Any) -> Component:
    """One card for each lesson, with the file of the whole lesson and a page to try it on."""
    view = View.read("lesson", query)
    pages = ("schedule", "play", "guess", "compare", "dial", "record", "play")
    folder = "docs/zh/lessons" if view.language == "zh" else "docs/lessons"
    cards = [
        html.Section(
            shell.card(
                html.P(view.say(f"lesson.{i}.words")),
                html.P([view.say("lesson.whole"), " ", html.Code(f"{folder}/{name}.md")]),
                shell.button(
                    view.say("lesson.try", page=view.say(f"nav.{page}")), view.href(page)
                ),
                title=view.say(f"lesson.{i}.title"),
            ),
            id=f"lesson-{i}",
        )
        for i, (name, page) in enumerate(zip(FILES, pages, strict=True), 1)
    ]
    return shell.page(view, shell.head(view), html.Div(cards, className="lessons"))
