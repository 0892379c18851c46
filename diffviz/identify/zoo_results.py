"""What the x-ray says of the loops of the zoo, and the sprites that they end with.

`look` runs one loop, right or with faults in it. `precompute` writes what it finds for every
shipped loop and fault into one file, which `results` reads without torch, so that a page shows a
loop at once. ``python -m diffviz.identify.zoo_results`` writes the shipped file anew.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.names import shipped
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.files.atomic import replacing
from diffviz.files.images import from_uint8, to_uint8
from diffviz.identify import zoo
from diffviz.sprites.make import make_sprites

if TYPE_CHECKING:
    from torch import Tensor

SHAPE = (16, 3, 16, 16)
"""Of the states that the x-ray looks at."""
SHOWN = 8
SPRITES = 200
"""The data, of which the denoiser is exact without training."""
CALLS = 100
"""Calls whose levels are kept."""
FILE = "zoo.npz"
CURVES = ("t_told", "signal", "signal_told", "level", "level_told")


@dataclass(frozen=True, eq=False)
class Result:
    """One loop, looked at.

    Attributes:
        program: the right loop.
        faults: the names of what is wrong in it; () for the right loop.
        behaves, rule, path, answer, findings: as `diffviz.identify.xray.XRay` has them.
        curves: told and held signal and level, (law, call) each, at most ``CALLS`` calls.
        sprites: what it ends with on sprites, (n, H, W, 3) uint8; black where not a number.
    """

    program: str
    faults: tuple[str, ...]
    behaves: bool | None
    rule: str | None
    path: str
    answer: str
    findings: tuple[Finding, ...]
    curves: dict[str, NDArray[np.float32]]
    sprites: NDArray[np.uint8]

    @property
    def source(self) -> str:
        """The lines of the loop."""
        return zoo.mutate(self.program, *self.faults)


def schedule() -> NoiseSchedule:
    """Of all loops here: as noisy at the end as the usual one, in fewer steps."""
    return NoiseSchedule.linear(200, 2.5e-4, 0.05)


def look(program: str, faults: Sequence[str] = (), seed: int = 0) -> Result:
    """Run a loop under the x-ray and on sprites; a few seconds.

    Raises:
        InputError: no such loop or fault, or faults that cannot go together.
    """
    import torch

    from diffviz.identify.xray import xray

    own = schedule()
    sampler = zoo.sampler(zoo.mutate(program, *faults), own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seen = xray(sampler, own, shape=SHAPE, seed=seed, seconds=300)
        torch.manual_seed(seed)
        with torch.no_grad():
            model = exact_model(zoo.programs()[program])
            end = sampler(model, (SHOWN, *SHAPE[1:])).double().numpy()
    law = seen.behaviour
    kept = np.unique(np.linspace(0, max(law.sizes["call"] - 1, 0), CALLS).round().astype(int))
    curves = {name: law[name].values[:, kept].astype(np.float32) for name in CURVES}
    pixels = to_uint8(np.nan_to_num(end, nan=-1.0))
    return Result(
        program, tuple(faults), seen.behaves, seen.rule, seen.path, seen.answer, seen.findings,
        curves, np.ascontiguousarray(pixels),
    )  # fmt: skip


def exact_model(program: zoo.Program) -> Callable[["Tensor", Any], "Tensor"]:
    """The model that a loop takes, exact for some sprites at every level.

    Times that a faulty loop asks for and that there are not become the nearest that there are.
    """
    from diffviz.diffusion.exact import DatasetDenoiser

    own, points = schedule(), from_uint8(make_sprites(SPRITES)[0])

    def model(x: "Tensor", t: Any) -> "Tensor":
        time = float(t)
        if program.path == "index":
            bar = float(own.alpha_bars[min(max(round(time), 1), own.T)])
            a, b = bar**0.5, (1 - bar) ** 0.5
        elif program.path == "sigma":
            a, b = 1.0, min(max(time, float(own.sigma[1])), float(own.sigma[-1]))
        else:
            a, b = 1 - min(max(time, 1e-3), 1 - 1e-3), min(max(time, 1e-3), 1 - 1e-3)
        size = (a * a + b * b) ** 0.5
        bars = np.array([1.0, (a / size) ** 2])
        eps = DatasetDenoiser(NoiseSchedule(1 - bars, bars, bars), points)(x.float() / size, 1)
        x_0 = (x - b * eps) / a
        return {"eps": eps, "x0": x_0, "flow": eps - x_0}[program.answer].to(x.dtype)

    return model


def precompute(path: Path, loops: Sequence[tuple[str, ...]] | None = None) -> None:
    """Look at every loop and fault (or at ``loops``, program and faults each) and write a file."""
    if loops is None:
        right = [(name,) for name in zoo.programs()]
        loops = [*right, *((fault.program, fault.name) for fault in zoo.faults())]
    found = [look(program, faults) for program, *faults in loops]
    arrays: dict[str, NDArray] = {"sprites": np.stack([result.sprites for result in found])}
    for i, result in enumerate(found):
        arrays[f"curves_{i}"] = np.stack([result.curves[name] for name in CURVES])
    table = [
        {
            "program": result.program,
            "faults": result.faults,
            "behaves": result.behaves,
            "rule": result.rule,
            "path": result.path,
            "answer": result.answer,
            "findings": [_plain(finding) for finding in result.findings],
        }
        for result in found
    ]
    arrays["table"] = np.frombuffer(json.dumps(table, ensure_ascii=False).encode(), np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        write: Any = np.savez_compressed
        write(file, **arrays)


def _plain(finding: Finding) -> dict[str, Any]:
    numbers = finding.numbers()
    del numbers["message"]
    return numbers


def results(path: Path | None = None) -> dict[tuple[str, ...], Result]:
    """What the file holds, by (program, fault, …).

    Raises:
        InputError: there is no such file, or it is none of these.
    """
    path = shipped(FILE) if path is None else path
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        table = json.loads(arrays["table"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} holds no results of the zoo: {type(error).__name__}") from None
    found = {}
    for i, row in enumerate(table):
        findings = tuple(
            Finding(f["id"], f["severity"], f["arm"], tuple(f["t_range"]), f["evidence"])
            for f in row.pop("findings")
        )
        row["faults"] = tuple(row["faults"])
        curves = dict(zip(CURVES, arrays[f"curves_{i}"], strict=True))
        result = Result(**row, findings=findings, curves=curves, sprites=arrays["sprites"][i])
        found[(result.program, *result.faults)] = result
    return found


if __name__ == "__main__":
    precompute(shipped(FILE))
