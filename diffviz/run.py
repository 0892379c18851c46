"""A run: one labelled dataset, its specification, and the one file that holds both.

The file is NetCDF-4 and opens with plain ``xarray.open_dataset``. It is written whole or not at
all. The SHA-256 of everything before stands at its end, where HDF5 does not look, so a cut or a
flipped bit is noticed before anything is parsed.
Nothing here needs torch.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from diffviz.errors import RunFileError
from diffviz.files import replacing
from diffviz.schedule import NoiseSchedule
from diffviz.tally import SNAPSHOT_UNIT

FORMAT = "diffviz-run-1"
SEAL = b"diffviz-sha256:"


@dataclass(frozen=True)
class RunSpec:
    """Everything that a run's numbers depend on: equal specs give equal runs.

    Attributes:
        denoiser: its name, in words.
        denoiser_digest: of its parameters; empty for a callable that diffviz does not know.
        schedule: its name, in words.
        schedule_digest: of β and ᾱ.
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
    arms: tuple[dict, ...]
    steps: int
    n: int
    block: int
    seed: int
    sample_shape: tuple[int, ...]
    label: str | None = None
    device: str = "cpu"

    @property
    def blocks(self) -> int:
        """How many blocks the run has."""
        return -(-self.n // self.block)

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """The spec that ``to_json`` wrote."""
        values = json.loads(text)
        values["arms"] = tuple(values["arms"])
        values["sample_shape"] = tuple(values["sample_shape"])
        return cls(**values)


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

    def save(self, path: str | Path) -> None:
        """Write the run to ``path``, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        encoding: dict[str, dict] = {
            str(name): {"zlib": True, "complevel": 1, "shuffle": True}
            for name, variable in self.dataset.variables.items()
            if variable.size > 4096 and variable.dtype.kind in "fiu"
        }
        if "snapshots" in encoding:
            encoding["snapshots"].update(
                dtype="int16", scale_factor=np.float32(SNAPSHOT_UNIT), _FillValue=-32768
            )
        # Made in memory: on a full disk the HDF5 library would take the process down with it.
        content = bytes(self.dataset.to_netcdf(engine="h5netcdf", encoding=encoding))
        with replacing(path) as temporary:
            temporary.write_bytes(content + SEAL + hashlib.sha256(content).digest())

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run and check that it is whole.

        Raises:
            RunFileError: nothing there, not a run of diffviz, or not as it was written.
        """
        path = Path(path)
        if not path.is_file():
            raise RunFileError(f"{path}: no such file; a run is a .nc file made by diffviz record")
        content = path.read_bytes()
        body, seal = content[: -len(SEAL) - 32], content[-len(SEAL) - 32 :]
        if not seal.startswith(SEAL):
            raise RunFileError(f"{path}: not a run of diffviz, or only a part of one")
        if seal != SEAL + hashlib.sha256(body).digest():
            raise RunFileError(f"{path}: changed since it was written; its digest differs")
        with xr.open_dataset(path, engine="h5netcdf") as file:
            dataset = file.load()
        if dataset.attrs.get("format") != FORMAT:
            found = dataset.attrs.get("format")
            raise RunFileError(f"{path}: its format is {found!r}; allowed is {FORMAT!r}")
        return cls(dataset)

    def __eq__(self, other: object) -> bool:
        """Equal specifications and, to the bit, equal numbers; not the moment of recording."""
        return (
            isinstance(other, Run)
            and self.spec == other.spec
            and self.dataset.equals(other.dataset)
        )

    def __hash__(self) -> int:
        return hash(self.dataset.attrs["spec"])


def array_digest(*arrays: NDArray[np.generic]) -> str:
    """SHA-256 over the bytes of the arrays."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
