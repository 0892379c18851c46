"""The blocks of an unfinished run, beside its ``--out``: one sealed file of named arrays."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from diffviz.errors import InputError, RunFileError
from diffviz.files.atomic import read_bytes, sealing, unseal
from diffviz.measure.moments import Moments, Spread
from diffviz.recording.block import BlockStats
from diffviz.recording.run import QUANTITIES, RunSpec

FORMAT = "diffviz-partial-2"
ALLOWED = "an unfinished run is the .partial file beside its --out"
MAX_BYTES = 2**33


def save_partial(path: Path, stats: BlockStats, spec: RunSpec) -> None:
    """Write the blocks done and the specification of their run, whole or not at all."""
    arrays: dict[str, Any] = {}
    for field in fields(stats):
        value = getattr(stats, field.name)
        if isinstance(value, Moments | Spread):
            arrays |= {f"{field.name}.{p.name}": getattr(value, p.name) for p in fields(value)}
        else:
            arrays[field.name] = value
    whole = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    # Not by save_file, which writes under a name of its own that a kill would leave behind.
    content = save(whole, metadata={"format": FORMAT, "spec": spec.to_json()})
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
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        if metadata.get("format") != FORMAT:
            raise RunFileError("not an unfinished run of this version of diffviz")
        spec = RunSpec.from_json(str(metadata["spec"]))
        values: dict[str, Any] = {}
        for field in fields(BlockStats):
            if field.type in (Moments, Spread):
                parts: dict[str, Any] = {
                    p.name: arrays[f"{field.name}.{p.name}"] for p in fields(field.type)
                }
                if field.type is Spread:
                    parts["n"] = float(parts["n"])
                values[field.name] = field.type(**parts)
            else:
                array = arrays[field.name]
                values[field.name] = int(array) if field.type is int else array
        stats = BlockStats(**values)
        _check(stats, spec)
    except InputError as error:
        raise RunFileError(f"{path}: {error}") from None
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise RunFileError(f"{path}: an unfinished run that cannot be read") from error
    return stats, spec


def _check(stats: BlockStats, spec: RunSpec) -> None:
    """The sizes are those of some of the blocks of this run.

    Raises:
        RunFileError: they are not.
    """
    if not (0 < stats.blocks < spec.blocks and stats.n == stats.blocks * spec.block):
        raise RunFileError(f"{stats.n} samples in {stats.blocks} blocks are no part of its run")
    arms, shape = len(spec.arms), spec.sample_shape
    if stats.ks.shape != (arms, len(QUANTITIES), spec.steps + 1) or (
        stats.samples.shape[0] != arms or stats.samples.shape[2:] != shape
    ):
        raise RunFileError(f"its arrays {stats.ks.shape}, {stats.samples.shape} are of other arms")
