"""The blocks of an unfinished run, beside its ``--out``: one sealed file of named arrays."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from diffviz.errors import InputError, RunFileError
from diffviz.files.atomic import read_bytes, sealing, unseal
from diffviz.recording.block import BlockStats
from diffviz.recording.run import RunSpec

FORMAT = "diffviz-partial-3"
ALLOWED = "an unfinished run is the .partial file beside its --out"
MAX_BYTES = 2**33
NUMBERS = ("blocks", "n", "keep")


def save_partial(path: Path, stats: BlockStats, spec: RunSpec) -> None:
    """Write the blocks done and the specification of their run, whole or not at all."""
    said = {"format": FORMAT, "spec": spec.to_json()}
    said |= {name: str(getattr(stats, name)) for name in NUMBERS}
    arrays = {name: np.asarray(array, order="C") for name, array in stats.arrays.items()}
    # Not by save_file, which writes under a name of its own that a kill would leave behind.
    content = save(arrays, metadata=said)
    with sealing(path) as temporary:
        temporary.write_bytes(content)


def load_partial(path: Path) -> tuple[BlockStats, RunSpec]:
    """(blocks done, specification of their run).

    Raises:
        RunFileError: the file is something else, not whole, or does not hold what it says.
    """
    raw = read_bytes(path, MAX_BYTES, ALLOWED, RunFileError)
    try:
        content = unseal(raw)
        if content is None:
            raise RunFileError("not an unfinished run of diffviz, or a part of one")
        arrays = load(content)
        length = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        if said.get("format") != FORMAT:
            raise RunFileError("not an unfinished run of this version of diffviz")
        spec = RunSpec.from_json(str(said["spec"]))
        numbers = {name: int(said[name]) for name in NUMBERS}
        stats = BlockStats(**numbers, **arrays)  # type: ignore[arg-type]
        if not (0 < stats.blocks < spec.blocks and stats.n == stats.blocks * spec.block):
            raise RunFileError(
                f"{stats.n} samples in {stats.blocks} blocks are no part of its run"
            )
    except InputError as error:
        raise RunFileError(f"{path}: {error}") from None
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise RunFileError(f"{path}: an unfinished run that cannot be read") from error
    return stats, spec
