"""The live plane in a notebook, as an anywidget."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from diffviz.diffusion.denoiser import describe
from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser, MixtureDenoiser
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.play import plane

if TYPE_CHECKING:
    from anywidget import AnyWidget


def play(denoiser: object = None, schedule: NoiseSchedule | None = None) -> "AnyWidget":
    """Watch samplers side by side in the plane, live, in a notebook.

    Args:
        denoiser: an exact denoiser of samples of shape (2,), Σ_k w_k N(m_k, s_k² I) with at most
            256 modes: `MixtureDenoiser`, `GaussianDenoiser` or `DatasetDenoiser`. Without one the
            laws of `plane.laws` are there to choose from, and to draw one's own.
        schedule: used as it is; without one, the denoiser's own, or one to choose.

    Raises:
        InputError: another denoiser, a schedule of more than 1,000 steps or without 0 < ᾱ_t < 1,
            or anywidget is not installed (``pip install "diffviz[notebook]"``).
    """
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise InputError('anywidget is not installed; pip install "diffviz[notebook]"') from None

    class Plane(anywidget.AnyWidget):
        _esm = plane.module()
        options = traitlets.Dict().tag(sync=True)

    return Plane(options=play_options(denoiser, schedule))


def play_options(denoiser: object, schedule: NoiseSchedule | None) -> dict[str, Any]:
    """The options of the widget; arguments and errors are those of `play`."""
    settings: dict[str, Any] = {}
    given: dict[str, Any] = {}
    laws = dict(plane.laws())
    if denoiser is not None:
        laws = {"given": law_of(denoiser), **laws}
        settings = {"law": "given"}
        schedule = getattr(denoiser, "schedule", None) if schedule is None else schedule
    if schedule is not None:
        settings |= {"schedule": "given", "T": schedule.T}
        given = {"given": _steps(schedule)}
    schedules = [*given, *plane.SCHEDULES]
    options = plane.options(settings=settings)
    data = {name: asdict(law) for name, law in laws.items()}
    html = plane.page(laws, schedules)
    return {**options, **given, "laws": data, "schedules": schedules, "html": html}


def law_of(denoiser: object) -> plane.Law:
    """The law that an exact denoiser in the plane is exact for.

    Raises:
        InputError: it is another denoiser, or one of too many modes.
    """
    if isinstance(denoiser, MixtureDenoiser) and denoiser.sample_shape == (2,):
        law = plane.Law.of(denoiser.means, denoiser.stds, denoiser.weights)
    elif isinstance(denoiser, GaussianDenoiser) and denoiser.sample_shape == (2,):
        if np.ptp(denoiser.std) > 0:
            raise InputError(
                f"std is {denoiser.std.tolist()}; allowed is one for both coordinates"
            )
        law = plane.Law.of(denoiser.mean[None], float(np.max(denoiser.std)))
    elif isinstance(denoiser, DatasetDenoiser) and denoiser.sample_shape == (2,):
        assert denoiser.law.points is not None
        law = plane.Law.of(denoiser.law.points.astype(np.float64), 0.0)
    else:
        shape = describe(denoiser).sample_shape
        shown = "" if shape is None else f" of samples {tuple(shape)}"
        raise InputError(
            f"denoiser is {type(denoiser).__name__}{shown}; allowed is a MixtureDenoiser, "
            "GaussianDenoiser or DatasetDenoiser of samples (2,)"
        )
    if len(law.means) > plane.MAX_POINTS:
        raise InputError(f"{len(law.means)} modes; allowed are at most {plane.MAX_POINTS}")
    return law


def _steps(schedule: NoiseSchedule) -> dict[str, object]:
    bars, alphas = schedule.alpha_bars[1:], schedule.alphas[1:]
    if not (np.all((bars > 0) & (bars < 1)) and np.all((alphas > 0) & (alphas < 1))):
        problem = "; ".join(schedule.violations()) or f"ᾱ from {bars.min():g} to {bars.max():g}"
        raise InputError(f"the schedule cannot be sampled: {problem}")
    if schedule.T > plane.MAX_T:
        raise InputError(f"T is {schedule.T}; allowed is at most {plane.MAX_T}")
    return {
        "T": schedule.T,
        "alpha": schedule.alphas.tolist(),
        "bar": schedule.alpha_bars.tolist(),
    }
