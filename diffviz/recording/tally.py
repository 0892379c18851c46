"""What one block of trajectories contributes to a run, and how blocks add up.

A `Tally` is frozen; ``merge`` is associative, so a run does not depend on how its blocks were
shared out. It holds numpy arrays only and can be written down between two blocks.
"""

import copy
import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from diffviz.errors import InputError, RunFileError
from diffviz.files.atomic import read_bytes, sealing, unseal
from diffviz.measure.statistics import Moments, Spread

FORMAT = "diffviz-partial-2"
ALLOWED = "an unfinished run is the .partial file beside its --out"
MAX_BYTES = 2**33
QUANTITIES = ("x", "eps", "residual")
BINS = 128
SNAPSHOT_UNIT = 2.0**-12
"""Snapshots are kept as int16 multiples of this, exact to 1/8192 within ±8."""
MAPPED = 256
"""Samples whose way through the plane is kept."""
FRAMED = 8
"""Samples that are kept as pictures at many times."""
NOTHING = -32768
"""The int16 that stands for no value."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tally:
    """Statistics of A arms over S+1 times, S steps, for samples of shape D.

    Attributes:
        blocks: how many blocks are in it.
        n: samples per arm.
        moments: of x, ε̂ and the residual, (A, 3, S+1); no value counts 0.
        ks: D against N(0, 1), (A, 3, S+1); exact, and of use in a single block only.
        cells: counts on the grid of N(0, 1), (A, 3, S+1, CELLS).
        histogram: counts on even bins for drawing, (A, 3, S+1, BINS).
        ks_marginal, marginal_cells: the same of x_t against q(x_t), (A, S+1[, CELLS]).
        pixels: spread of x_t per coordinate, (A, S+1, coordinates).
        coordinates: which of the D coordinates those are.
        within: Σ over samples of the variance within a sample, (A, S+1).
        noise, noise_ks, noise_cells: of the shared draw z, (S,), (S,), (S, CELLS).
        snapshots: (A, snapshots, kept, *D), int16 in ``SNAPSHOT_UNIT``.
        plane: x_t of a few samples along two directions, (A, S+1, few, 2) float32.
        frames: a few samples at many times as pictures, (A, frames, few, *D) uint8; none of them
            unless samples are images.
        samples: end points of the samples kept, (A, kept, *D) float32.
        nearest: spread over samples of the RMS distance to the nearest data, (A,).
        hits: which data were nearest to some sample, (A, N) bool; N = 0 when unknown.
        class_counts: samples by the class of their nearest data, (A, classes).
        ends: index of the step that gave no finite state, (A,); S for an arm that is whole.
    """

    blocks: int
    n: int
    moments: Moments
    ks: Array
    cells: NDArray[np.unsignedinteger]
    histogram: NDArray[np.uint32]
    ks_marginal: Array
    marginal_cells: NDArray[np.unsignedinteger]
    pixels: Spread
    coordinates: NDArray[np.int64]
    within: Array
    noise: Moments
    noise_ks: Array
    noise_cells: NDArray[np.unsignedinteger]
    snapshots: NDArray[np.int16]
    plane: NDArray[np.float32]
    frames: NDArray[np.uint8]
    samples: NDArray[np.float32]
    nearest: Spread
    hits: NDArray[np.bool_]
    class_counts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def merge(self, other: "Tally", keep: int) -> "Tally":
        """This tally followed by ``other``, with at most ``keep`` samples kept."""
        return Tally(
            blocks=self.blocks + other.blocks,
            n=self.n + other.n,
            moments=self.moments.merge(other.moments),
            ks=np.full_like(self.ks, np.nan),
            cells=_added(self.cells, other.cells),
            histogram=self.histogram + other.histogram,
            ks_marginal=np.full_like(self.ks_marginal, np.nan),
            marginal_cells=_added(self.marginal_cells, other.marginal_cells),
            pixels=self.pixels.merge(other.pixels),
            coordinates=self.coordinates,
            within=self.within + other.within,
            noise=self.noise.merge(other.noise),
            noise_ks=np.full_like(self.noise_ks, np.nan),
            noise_cells=_added(self.noise_cells, other.noise_cells),
            snapshots=np.concatenate([self.snapshots, other.snapshots], axis=2)[:, :, :keep],
            plane=np.concatenate([self.plane, other.plane], axis=2)[:, :, :MAPPED],
            frames=np.concatenate([self.frames, other.frames], axis=2)[:, :, :FRAMED],
            samples=np.concatenate([self.samples, other.samples], axis=1)[:, :keep],
            nearest=self.nearest.merge(other.nearest),
            hits=self.hits | other.hits,
            class_counts=self.class_counts + other.class_counts,
            ends=np.minimum(self.ends, other.ends),
        )

    def cut(self, shown: NDArray[np.int64], framed: NDArray[np.int64]) -> "Tally":
        """Without what broken arms have after their end: no counts, NaN, no end points.

        x_t is kept up to the time that the last step left from, ε̂ before it; the residual, which
        needs an end point, nowhere. ``shown`` and ``framed`` are the indices of the times of the
        snapshots and frames; a frame after the end is black.
        """
        steps = self.moments.n.shape[-1] - 1
        if (self.ends == steps).all():
            return self
        cut = {field.name: copy.deepcopy(getattr(self, field.name)) for field in fields(self)}
        for arm, end in enumerate(self.ends.tolist()):
            if end >= steps:
                continue
            for quantity, start in enumerate((end + 1, end, 0)):
                after = (arm, quantity, slice(start, None))
                for field in fields(Moments):
                    getattr(cut["moments"], field.name)[after] = 0
                cut["ks"][after], cut["cells"][after], cut["histogram"][after] = np.nan, 0, 0
            after_x = (arm, slice(end + 1, None))
            cut["ks_marginal"][after_x], cut["marginal_cells"][after_x] = np.nan, 0
            cut["pixels"].mean[after_x] = cut["pixels"].m2[after_x] = np.nan
            cut["within"][after_x] = np.nan
            cut["snapshots"][arm, shown > end] = NOTHING
            cut["plane"][after_x], cut["frames"][arm, framed > end] = np.nan, 0
            cut["samples"][arm] = np.nan
            cut["nearest"].mean[arm] = cut["nearest"].m2[arm] = np.nan
            cut["hits"][arm], cut["class_counts"][arm] = False, 0
        return Tally(**cut)

    def fits(self, other: "Tally") -> bool:
        """Whether the two have the same arms, times and shapes, as those of one run have."""

        def shapes(tally: "Tally") -> list[tuple[object, ...]]:
            parts = (tally.moments, tally.noise, tally.pixels)
            arrays = [getattr(part, field.name) for part in parts for field in fields(part)]
            arrays += [tally.cells, tally.histogram, tally.marginal_cells, tally.noise_cells]
            arrays += [
                tally.within,
                tally.ends,
                tally.hits,
                tally.class_counts,
                tally.nearest.mean,
            ]
            arrays += [tally.samples[:, 0], tally.snapshots[:, :, 0], tally.coordinates]
            arrays += [tally.plane[:, :, :1], tally.frames[:, :, :1]]
            return [(*array.shape, array.dtype.kind) for array in arrays]

        return shapes(self) == shapes(other)

    def save(self, path: Path, spec: str) -> None:
        """Write the tally and the specification of its run, whole or not at all."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Moments | Spread):
                for part in fields(value):
                    arrays[f"{field.name}.{part.name}"] = np.asarray(
                        getattr(value, part.name), order="C"
                    )
            else:
                arrays[field.name] = np.asarray(value, order="C")
        # Not by save_file, which writes under a name of its own that a kill would leave behind.
        content = save(arrays, metadata={"format": FORMAT, "spec": spec})
        with sealing(path) as temporary:
            temporary.write_bytes(content)

    @classmethod
    def load(cls, path: Path) -> tuple["Tally", str]:
        """(tally, specification) as ``save`` wrote them.

        Raises:
            RunFileError: the file is something else or not whole.
        """
        raw = read_bytes(path, MAX_BYTES, ALLOWED, RunFileError)
        try:
            content = unseal(raw)
            if content is None:
                raise RunFileError(f"{path}: not an unfinished run of diffviz, or a part of one")
            arrays = load(content)
            length = int.from_bytes(content[:8], "little")
            metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
            if metadata.get("format") != FORMAT:
                raise RunFileError(f"{path}: not an unfinished run of this version of diffviz")
            spec = str(metadata["spec"])
            values: dict[str, object] = {}
            for field in fields(cls):
                if field.type in (Moments, Spread):
                    parts = {
                        part.name: arrays[f"{field.name}.{part.name}"]
                        for part in fields(field.type)
                    }
                    values[field.name] = field.type(**parts)
                else:
                    array = arrays[field.name]
                    values[field.name] = int(array) if field.type is int else array
        except RunFileError:
            raise
        except InputError as error:
            raise RunFileError(f"{path}: {error}") from None
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise RunFileError(f"{path}: an unfinished run that cannot be read") from error
        return cls(**values), spec  # type: ignore[arg-type]


def _added(a: NDArray[np.unsignedinteger], b: NDArray[np.unsignedinteger]) -> NDArray[np.uint32]:
    """Counts of both in 32 bits; those of a single block take 16 where that is enough."""
    return np.add(a, b, dtype=np.uint32)
