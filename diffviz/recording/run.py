"""A run: one labelled dataset, its specification, and the one file that holds both.

The file is NetCDF-4 and opens with plain ``xarray.open_dataset``. It is written whole or not at
all. The SHA-256 of everything before stands at its end, where HDF5 does not look, so a cut or a
flipped bit is noticed before anything is parsed. Nothing here needs torch.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError, RunFileError, shown, writable
from diffviz.files.atomic import read_bytes, sealing, unseal

FORMAT = "diffviz-run-2"
ALLOWED = "a run is a .nc file made by diffviz record"
MAX_BYTES = 2**31
QUANTITIES = ("x", "eps", "residual")
SNAPSHOT_UNIT = 2.0**-12
"""Snapshots are kept as int16 multiples of this, exact to 1/8192 within ±8."""
NOTHING = -32768
"""The int16 that stands for no value."""
BANDS = (
    *("mean", "std", "std_between", "std_within", "distance_to_mean", "ks_marginal"),
    *("residual_std", "residual_ks"),
)
"""Curves with the range in which a right sampler stays, ``*_low`` and ``*_high``."""

_T, _ARM, _ARM_T, _QUANTITY = ("t",), ("arm",), ("arm", "t"), ("arm", "quantity", "t")
_SCHEDULE = ("schedule_t",)
VARIABLES: dict[str, tuple[tuple[str, ...], str]] = {
    "arm": (_ARM, "way of sampling"),
    "t": (_T, "time, T is noise and 0 is data"),
    "quantity": (("quantity",), "what is measured"),
    "bin": (("bin",), "middle of the bin"),
    "snapshot": (("snapshot",), "time of the snapshot"),
    "schedule_t": (_SCHEDULE, "time, all of 0…T"),
    "class": (("class",), "class of the data"),
    "frame_t": (("frame",), "time of the frame"),
    "mean": (_QUANTITY, "mean over all coordinates"),
    "std": (_QUANTITY, "standard deviation over all coordinates"),
    "skewness": (_QUANTITY, "skewness"),
    "kurtosis": (_QUANTITY, "excess kurtosis"),
    "values": (_QUANTITY, "number of values behind the statistics"),
    "ks_normal": (_QUANTITY, "KS distance D from N(0, 1)"),
    "ks_normal_error": (_QUANTITY, "half-width of the bounds of D, 0 when exact"),
    "ks_normal_p": (_QUANTITY, "KS p-value, where values are independent under the null"),
    "histogram": ((*_QUANTITY, "bin"), "counts; the outer bins reach to infinity"),
    "ks_marginal": (_ARM_T, "KS distance D of x_t from the marginal q(x_t)"),
    "ks_marginal_error": (_ARM_T, "half-width of the bounds, 0 when exact"),
    "std_between": (_ARM_T, "std between samples, root mean square over coordinates"),
    "std_within": (_ARM_T, "std within a sample, root mean square over samples"),
    "distance_to_mean": (_ARM_T, "RMS over coordinates of x_t less √ᾱ_t times the data's mean"),
    "noise_level": (_ARM_T, "noise per unit of signal in x_t, against its own end point"),
    "noise_std": (_ARM_T, "std of the noise injected in the step that leaves t"),
    "noise_ks": (_ARM_T, "KS distance D of the injected noise, scaled to std 1, from N(0, 1)"),
    "noise_ks_error": (_ARM_T, "half-width of the bounds"),
    "noise_ks_p": (_ARM_T, "KS p-value of the injected noise"),
    "snapshots": (("arm", "snapshot", "sample"), "x_t at the snapshot times"),
    "samples": (("arm", "sample"), "end points x_0"),
    "frames": (("arm", "frame", "frame_sample"), "a few samples as pictures, [−1, 1] as 0…255"),
    "map": (("arm", "t", "map_sample", "plane"), "x_t less its mean, along the data's main axes"),
    "map_std": (("t", "plane"), "std of q(x_t) along them"),
    "map_data": (("point", "plane"), "the data themselves along them, less their mean"),
    "nearest_distance": (_ARM, "RMS distance over coordinates from end points to nearest data"),
    "distinct_nearest": (_ARM, "how many different data are nearest to some end point"),
    "reference_distinct_nearest": ((), "the same, expected of as many draws from the data"),
    "class_count": (("arm", "class"), "end points by class"),
    "reference_class_share": (("class",), "share of the class in the data"),
    "answer_repeat_difference": (_ARM, "relative RMS difference of answers to two equal calls"),
    "answer_batch_difference": (_ARM, "the same where only the rest of the batch differs"),
    "reference_mean": (_T, "mean of q(x_t)"),
    "reference_std": (_T, "std of q(x_t) over all coordinates"),
    "reference_std_between": (_T, "std of q(x_t) between samples"),
    "reference_std_within": (_T, "std within a sample of q(x_t)"),
    "reference_distance_to_mean": (_T, "RMS over coordinates of q(x_t) less its mean"),
    "reference_noise_level": (_T, "the level the denoiser is told"),
    "reference_histogram": (("t", "bin"), "probability of the bin under q(x_t)"),
    **{
        f"{name}_{end}": (_T, f"{end} end of {name} in 95 % of right samplers with this n")
        for name in BANDS
        for end in ("low", "high")
    },
    **{
        f"schedule_{name}": (_SCHEDULE, f"{name}_t for every t")
        for name in ("beta", "alpha", "alpha_bar")
    },
}
"""Of every variable of a run: its dimensions, and what it is. A run may hold more."""
OPTIONAL = (
    ("class_count", "reference_class_share", "class"),
    ("nearest_distance", "distinct_nearest", "reference_distinct_nearest"),
    ("answer_repeat_difference", "answer_batch_difference"),
    ("map", "map_std", "map_data"),
    ("frames", "frame_t"),
)
"""Together or not at all; what else is in ``VARIABLES`` is in every run."""
WORDS = ("arm", "quantity", "class")
PICTURES = ("samples", "snapshots", "frames")
"""Over the dimensions of a sample as well."""


Count = Annotated[int, Field(strict=True, ge=1, lt=2**63)]


@checked_dataclass(frozen=True, config={"extra": "forbid"})
class RunSpec:
    """Everything that a run's numbers depend on: equal specs give equal runs.

    Attributes:
        denoiser: its name, in words.
        denoiser_digest: of its parameters; empty for a callable that diffviz does not know.
        schedule: its name, in words.
        schedule_digest: of β, α and ᾱ.
        arms: one mapping of name, rule and noise_scale per arm.
        steps: how many of the T steps a sampler takes.
        n: samples per arm.
        block: samples per block, the unit of batch and seed.
        seed: of x_T and z, through ``SeedSequence([seed, block number])``.
        sample_shape: shape of one sample.
        label: the class sampled, or None.
        device: the kind of device; random bits differ between kinds.
    """

    denoiser: str
    denoiser_digest: str
    schedule: str
    schedule_digest: str
    arms: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    steps: Count
    n: Count
    block: Count
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)]
    sample_shape: tuple[Count, ...]
    label: str | None = None
    device: str = "cpu"

    @field_validator("arms")
    @classmethod
    def _check_arms(cls, arms: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for arm in arms:
            texts = all(isinstance(arm.get(key), str) for key in ("name", "rule"))
            scale = arm.get("noise_scale")
            number = isinstance(scale, int | float) and not isinstance(scale, bool)
            if not texts or not (number and 0 <= float(str(scale)) < np.inf):
                raise ValueError("an arm has a name, a rule and a noise_scale of 0 or more")
        return arms

    @property
    def blocks(self) -> int:
        """How many blocks the run has."""
        return -(-self.n // self.block)

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """The spec that ``to_json`` wrote.

        Raises:
            RunFileError: it did not.
        """
        try:
            return cls(**json.loads(text))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise RunFileError(
                f"its specification has {place} = {first['input']!r:.80}: {first['msg']}"
            ) from None
        except (ValueError, TypeError, RecursionError):
            raise RunFileError("its specification cannot be read") from None


@dataclass(frozen=True, eq=False)
class Run:
    """A recorded run. ``dataset`` holds every number; its variables say what they are."""

    dataset: xr.Dataset

    @cached_property
    def spec(self) -> RunSpec:
        """What was recorded."""
        return RunSpec.from_json(self.dataset.attrs["spec"])

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """The schedule of the run."""
        beta, alpha, bar = (
            self.dataset[f"schedule_{name}"].values for name in ("beta", "alpha", "alpha_bar")
        )
        return NoiseSchedule(beta, alpha, bar, self.spec.schedule)

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in order."""
        return [str(name) for name in self.dataset["arm"].values]

    @cached_property
    def broken(self) -> dict[str, int]:
        """Arms that stop being finite, with the time of the step at which they do."""
        x, eps = (self.dataset["mean"].sel(quantity=q).values for q in ("x", "eps"))
        # ε̂ at t and x_s after it belong to the step that leaves t.
        wrong = ~np.isfinite(eps[:, :-1]) | ~np.isfinite(x[:, 1:])
        samples = self.dataset["samples"].values
        wrong[:, -1] |= ~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1)
        times = self.dataset["t"].values
        return {
            name: int(times[steps.argmax()])
            for name, steps in zip(self.arms, wrong, strict=True)
            if steps.any()
        }

    def plot(
        self, name: str, *, language: str = "en", theme: str = "light", t: int | None = None
    ) -> Any:
        """The picture ``name`` as a plotly figure; the same as ``diffviz.plot``.

        Args:
            name: map, strips, ks, stds, mean, distance, dial, staircase, histogram, noise,
                diversity, schedule or trajectories.
            language: en or zh.
            theme: light or dark.
            t: the step that is looked at.

        Raises:
            InputError: an unknown name, or a picture that the run has no numbers for.
        """
        figures = import_module("diffviz.figures")
        return figures.plot(self, name, language=language, theme=theme, t=t)

    def _repr_html_(self) -> str:
        return import_module("diffviz.figures.notebook").run_html(self)

    def save(self, path: str | Path) -> None:
        """Write the run to ``path``, whole or not at all.

        Raises:
            InputError: the file cannot be written, or not hold the names.
        """
        classes = self.dataset["class"].values.tolist() if "class" in self.dataset else ()
        check_words(self.spec, classes)
        encoding: dict[str, dict] = {
            str(name): {"zlib": True, "complevel": 1, "shuffle": True}
            for name, variable in self.dataset.variables.items()
            if variable.size > 4096 and variable.dtype.kind in "fiu"
        }
        if "snapshots" in encoding:
            encoding["snapshots"].update(
                dtype="int16", scale_factor=np.float32(SNAPSHOT_UNIT), _FillValue=NOTHING
            )
        # Made in memory: on a full disk the HDF5 library would take the process down with it.
        content = bytes(self.dataset.to_netcdf(engine="h5netcdf", encoding=encoding))
        with sealing(path) as temporary:
            temporary.write_bytes(content)

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run and check that it is whole, and that it is one.

        Raises:
            RunFileError: nothing there, not a run of diffviz, or not as it was written.
        """
        raw = read_bytes(path, MAX_BYTES, ALLOWED, RunFileError)
        try:
            content = unseal(raw)
            if content is None:
                raise RunFileError("not a run of diffviz, or only a part of one")
            with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as file:
                _check_sizes(file)  # before anything is read
                run = cls(file.load())
            check_run(run)
            return run
        except InputError as error:
            raise RunFileError(f"{path}: {error}") from None
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # the HDF5 library raises a dozen types on what is not HDF5
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise RunFileError(f"{path}: sealed, but not a run of diffviz: {reason}") from None

    def __eq__(self, other: object) -> bool:
        """Equal specifications and, to the bit, equal numbers; not the moment of recording."""
        return (
            isinstance(other, Run)
            and self.spec == other.spec
            and self.dataset.equals(other.dataset)
        )

    def __hash__(self) -> int:
        return hash(self.dataset.attrs["spec"])


def check_words(spec: RunSpec, classes: Sequence[str]) -> None:
    """The names of a run and its classes can be written to a file.

    Raises:
        InputError: one holds a NUL, or a surrogate that UTF-8 cannot write.
    """
    names = [str(arm[key]) for arm in spec.arms for key in ("name", "rule")]
    for words in (spec.denoiser, spec.schedule, spec.label or "", *names, *classes):
        if not writable(words):
            raise InputError(
                f"a name is {words!a:.200}; a run file can hold what UTF-8 can write, and no NUL"
            )


def check_run(run: Run) -> None:
    """Check everything that figures rely on.

    Raises:
        RunFileError: a variable is missing or of another size, or names or times are wrong.
    """
    _check_sizes(run.dataset)
    data, spec = run.dataset, run.spec
    names = [str(arm["name"]) for arm in spec.arms]
    if run.arms != names or list(data["quantity"].values) != list(QUANTITIES):
        raise RunFileError(f"its arms are {shown(run.arms)}; its specification has {shown(names)}")
    t, T, edges = data["t"].values, data.sizes["schedule_t"] - 1, data["bin"].values
    some = [data[name].values for name in ("snapshot", "frame_t") if name in data.variables]
    falling = all((np.diff(times) < 0).all() and np.isin(times, t).all() for times in (t, *some))
    counted = np.array_equal(data["schedule_t"].values, np.arange(T + 1))
    if not falling or not counted or t[0] > T or t[-1] != 0:
        raise RunFileError(f"its times do not fall to 0, or lie outside 0…{T}")
    if len(edges) < 2 or (np.diff(edges) <= 0).any():
        raise RunFileError("its bins do not rise")


def _check_sizes(dataset: xr.Dataset) -> None:
    """Every variable is there, with its dimensions, of the sizes that the specification says."""
    if dataset.attrs.get("format") != FORMAT:
        found = str(dataset.attrs.get("format"))[:80]
        raise RunFileError(
            f"its format is {found!r} and this diffviz reads {FORMAT!r}; record the run again"
        )
    spec = RunSpec.from_json(str(dataset.attrs.get("spec")))
    sizes = {"arm": len(spec.arms), "quantity": len(QUANTITIES), "t": spec.steps + 1}
    absent = {n for group in OPTIONAL for n in group if not {*group} & {*dataset.variables}}
    for name, (dims, _) in VARIABLES.items():
        if name in absent:
            continue
        if name not in dataset.variables:
            raise RunFileError(f"the variable {name!r} is missing")
        variable = dataset.variables[name]
        shape = spec.sample_shape if name in PICTURES else ()
        if variable.dims[: len(dims)] != dims or variable.shape[len(dims) :] != shape:
            raise RunFileError(
                f"{name} is over {variable.dims} {variable.shape}; allowed is {(*dims, *shape)}"
            )
        if (variable.dtype.kind in "fiu") == (name in WORDS):
            allowed = "words" if name in WORDS else "numbers"
            raise RunFileError(f"{name} holds {variable.dtype}; allowed are {allowed}")
    wrong = {dim: size for dim, size in sizes.items() if dataset.sizes[dim] != size}
    kept = dataset.sizes["sample"]
    if wrong or not 1 <= kept <= spec.n or dataset.sizes["schedule_t"] < 2:
        raise RunFileError(f"its sizes are {dict(dataset.sizes)}; its specification has {sizes}")


def array_digest(*arrays: NDArray[np.generic]) -> str:
    """SHA-256 over the bytes of the arrays."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
