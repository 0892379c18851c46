"""``:::{plane} PRESET`` puts the live plane there, in the language of the page.

The piece of HTML carries the module and its options, so that a page works from a file as well.
Slides leave it out.
"""

from typing import Any

from docutils import nodes
from docutils.parsers.rst.directives import nonnegative_int
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from diffviz.play.plane import options, plane_html


class Plane(SphinxDirective):
    """A preset of `diffviz.play.plane.PRESETS`; ``:t:`` is the time step it is shown at first."""

    required_arguments = 1
    option_spec = {"t": nonnegative_int}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Raw HTML, which other builders skip."""
        if self.env.app.builder.name == "revealjs":
            return []
        language = "zh" if (self.config.language or "").startswith("zh") else "en"
        identifier = f"plane-{self.env.new_serialno('plane')}"
        chosen = options(self.arguments[0], language, settings=self.options)
        html = plane_html(chosen, identifier)
        return [nodes.raw("", html, format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("plane", Plane)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
