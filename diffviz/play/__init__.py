r"""The live plane: three samplers at once on a law of data that is known exactly.

The data are Σ_k w_k N(m_k, s_k² I) in the plane, so ε̂ is exact and every x_t has a known law,
q(x_t) = Σ_k w_k N(√ᾱ m_k, (ᾱ s_k² + 1 − ᾱ) I). ``plane.js`` runs the samplers in a browser, with
no server; ``plane.py`` gives it laws, presets and texts. The tests compute the same states and
numbers with `diffviz.sample`. Read ``plane.js`` first: its first half is the mathematics.

The package itself can be called: ``dv.play(denoiser=None, schedule=None)`` shows the plane in a
notebook (`diffviz.play.widget.play`).
"""

import sys
from types import ModuleType
from typing import Any


class _Play(ModuleType):
    def __call__(self, denoiser: Any = None, schedule: Any = None) -> Any:
        """The live plane as a widget: see `diffviz.play.widget.play`."""
        from diffviz.play.widget import play

        return play(denoiser, schedule)


sys.modules[__name__].__class__ = _Play
