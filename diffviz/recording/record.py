r"""Recording: a run is sampled and measured block by block.

The block is the unit of batch, seed, task and durability. Block k draws x_T and z from
``SeedSequence([seed, k])`` alone, so it is the same on every worker, and blocks are added in their
order: sharing them out differently cannot change a run.
"""

import math
import multiprocessing
import operator
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from diffviz.diffusion.denoiser import Denoiser, describe, on_device, restarted
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm, check_arms, coefficient_table
from diffviz.diffusion.sampler import check_device, sample
from diffviz.diffusion.schedule import NoiseSchedule, check_schedule
from diffviz.errors import InputError, NonfiniteError, RunFileError, check_integer, shown
from diffviz.files.atomic import check_writable, only_writer
from diffviz.files.terminal import SafeStream
from diffviz.recording.block import BlockStats, block_bytes, kept_samples, usual_block
from diffviz.recording.checks import CALLS, SAMPLES, Answers, FiniteArms, compare_answers
from diffviz.recording.dataset import assemble
from diffviz.recording.partial import load_partial, save_partial
from diffviz.recording.recorder import Recorder
from diffviz.recording.run import Run, RunSpec, array_digest, check_words

MAX_DIMENSIONS = 16
MAX_MEMORY = 2**34
"""Bytes that one block may need in all."""
MIN_SAMPLED = 33 * CALLS * SAMPLES
"""Sampled answers from which on `compare_answers` takes little of the time."""

Watch = Callable[[int, int, Recorder], None]
"""Told (block, index of the step, recorder) after every step of a recording in this process."""


@dataclass(frozen=True)
class _Job:
    """What a worker needs to compute any block of a run."""

    denoiser: Denoiser
    schedule: NoiseSchedule
    arms: tuple[Arm, ...]
    spec: RunSpec
    law: DataLaw | None
    context: NDArray[np.float32] | None
    keep: int
    device: str

    def words(self, block: int) -> NDArray[np.unsignedinteger]:
        """Two random words that belong to this block of this seed alone."""
        return np.random.SeedSequence([self.spec.seed, block]).generate_state(2, np.uint32)

    def fresh(self, block: int) -> Denoiser:
        """The denoiser; one that draws for itself draws the same in a block on every worker."""
        return restarted(self.denoiser, int(self.words(block)[1]))


def record(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    *,
    arms: Sequence[Arm] = DEFAULT_ARMS,
    n: int = 64,
    seed: int = 0,
    block: int | None = None,
    steps: int | None = None,
    label: str | None = None,
    device: str = "cpu",
    sample_shape: tuple[int, ...] | None = None,
    progress: bool = True,
    executor: Executor | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Sample ``n`` trajectories per arm from common noise and record every step of them.

    Args:
        denoiser: ours, or any callable (x, t, context) -> ε̂.
        schedule: gives the coefficients; may differ from the denoiser's own.
        arms: the ways of sampling, all in one batch.
        n: samples per arm, at least 1.
        seed: of x_T and z.
        block: samples per block; 64 images, more of smaller samples, unless given.
        steps: how many of the T steps to take, evenly spaced; all unless given.
        label: the class to sample, for a denoiser with ``classes``.
        device: where to sample.
        sample_shape: shape of one sample, for a denoiser that has none; (3, 16, 16) if not given.
        progress: show a bar with an estimate on standard error.
        executor: computes blocks elsewhere; here, one after the other, unless given.
        out: also save the run there. Finished blocks are kept beside it until it is whole.
        resume: go on from the blocks kept by an unfinished recording of the same run. A callable
            that is no module and has no ``digest`` is taken to be the one that was recorded.
        watch: told of every step that this process takes, as ``Recorder.latest`` describes it.

    Raises:
        InputError: an argument is out of range, the denoiser's answer is unusable (naming the
            step), or ``out`` cannot be written, or another recording is writing it.
    """
    start = time.perf_counter()
    if executor is not None and not isinstance(executor, Executor):
        raise InputError(
            f"executor is {shown(executor)}; allowed is a concurrent.futures.Executor"
        )
    if not (watch is None or callable(watch)):
        raise InputError(f"watch is {shown(watch)}; allowed is a function")
    job = _job(denoiser, schedule, arms, n, seed, block, steps, label, device, sample_shape)
    if out is None:
        return _finished(job, _sum_of_blocks(job, None, None, progress, executor, watch), start)
    target = check_writable(out)
    check_words(job.spec, job.law.classes if job.law is not None else ())
    kept = target.with_name(target.name + ".partial")
    check_writable(kept)
    with only_writer(target):
        if resume and target.is_file() and not kept.exists():
            finished = Run.load(out)
            if not finished.broken:
                _check_same(finished.spec, job.spec, Path(out))
                return finished
        begun = _kept(kept, job.spec, resume)
        stats = _sum_of_blocks(job, begun, kept, progress, executor, watch)
        return _finished(job, stats, start, out, kept)


def _job(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    arms: Sequence[Arm],
    n: int,
    seed: int,
    block: int | None,
    steps: int | None,
    label: str | None,
    device: str,
    sample_shape: tuple[int, ...] | None,
) -> _Job:
    n, seed = check_integer("n", n, 1, 10**9), check_integer("seed", seed, 0, 2**32 - 1)
    arms = check_arms(arms)
    bars = check_schedule(schedule).alpha_bars[1:]
    if not ((bars > 0) & (bars < 1)).all():
        problems = "; ".join(schedule.violations()) or f"ᾱ from {bars.min():g} to {bars.max():g}"
        raise InputError(f"{schedule.name} cannot be sampled from: {problems}")
    known = describe(denoiser)
    if sample_shape is None:  # () is a shape, that of a number
        sample_shape = (3, 16, 16) if known.sample_shape is None else known.sample_shape
    shape = _checked_shape(sample_shape, n)
    law, context, size = known.law, None, math.prod(shape)
    if law is not None and law.mean.shape != shape:
        raise InputError(f"sample_shape is {shape}; allowed is {law.mean.shape}, that of the data")
    times = schedule.times(steps)
    coefficient_table(arms, schedule, times)  # a rule that gives nonsense is named now
    block = usual_block(size) if block is None else check_integer("block", block, 1, 10**6)
    block = min(n, block)
    need = block_bytes(len(arms), block, size, len(times), block < n)
    if need > MAX_MEMORY:
        raise InputError(
            f"{len(arms)} arms × {block} samples in a block × {size} values × {len(times) - 1} "
            f"steps need about {need / 2**30:.0f} GiB; allowed are {MAX_MEMORY >> 30} GiB: take "
            "fewer arms, a smaller block or fewer steps"
        )
    check_device(device)
    if label is not None:
        if label not in known.classes:
            allowed = ", ".join(known.classes) or "none, this denoiser has no classes"
            raise InputError(f"class is {shown(label)}; allowed: {allowed}")
        which = known.classes.index(label)
        context = np.eye(len(known.classes), dtype=np.float32)[which]
        law = law.only(which) if law is not None and law.labels is not None else None
    _ = law.plane if law is not None else None  # found once, and not by every worker
    spec = RunSpec(
        denoiser=known.name,
        denoiser_digest=known.digest,
        schedule=schedule.name,
        schedule_digest=array_digest(schedule.betas, schedule.alphas, schedule.alpha_bars),
        arms=tuple(
            {"name": a.name, "rule": a.rule.name, "noise_scale": float(a.noise_scale)}
            for a in arms
        ),
        steps=len(times) - 1,
        n=n,
        block=block,
        seed=seed,
        sample_shape=shape,
        label=label,
        device=torch.device(device).type,
    )
    keep = kept_samples(n, size)
    return _Job(on_device(denoiser, device), schedule, arms, spec, law, context, keep, device)


def _checked_shape(shape: Iterable[SupportsIndex], n: int) -> tuple[int, ...]:
    try:
        sizes = tuple(map(operator.index, shape))
    except TypeError:
        sizes = (0,)
    if len(sizes) > MAX_DIMENSIONS or min(sizes, default=1) < 1:
        raise InputError(
            f"sample_shape is {shown(shape)}; allowed are up to {MAX_DIMENSIONS} whole numbers "
            "from 1"
        )
    if n * math.prod(sizes) >= 2**32:
        raise InputError(f"n is {n}, of {math.prod(sizes)} values each; allowed are 2³² in all")
    return sizes


# ------------------------------------------------------------------------------ one block


def record_block(job: _Job, block: int, watch: Watch | None = None) -> BlockStats:
    """Sample and record one block of a run. Depends on nothing but its arguments.

    An arm that stops being finite ends there; its ``ends`` say so.
    """
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # named below, not warned of
            return _sample_block(job, block, watch=watch)
    except NonfiniteError:
        guard = FiniteArms(job.fresh(block), len(job.arms), job.spec.steps)
        stats = _sample_block(job, block, guard)
        if min(guard.ends) == job.spec.steps:
            raise
        return replace(stats, ends=np.array(guard.ends))


def _sample_block(
    job: _Job, block: int, guard: FiniteArms | None = None, watch: Watch | None = None
) -> BlockStats:
    spec, device, words = job.spec, torch.device(job.device), job.words(block)
    generator = torch.Generator(device).manual_seed(int(words[0]) << 31 ^ int(words[1]))
    batch, times = min(spec.block, spec.n - block * spec.block), job.schedule.times(spec.steps)
    shape = (batch, *spec.sample_shape)
    x_T = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    context = None
    if job.context is not None:
        context = torch.as_tensor(job.context, device=device).expand(batch, -1)
    given: dict[str, Any] = {"law": job.law, "keep": job.keep, "mergeable": spec.blocks > 1}
    recorder = Recorder(
        job.schedule, times, len(job.arms), batch, spec.sample_shape, **given, device=job.device
    )
    denoiser = job.fresh(block) if guard is None else guard
    steps = sample(
        denoiser, job.schedule, x_T, generator, arms=job.arms, times=times, context=context
    )
    for index, step in enumerate(steps):
        recorder.observe(step)
        if watch is not None:
            watch(block, index, recorder)
    if guard is not None:
        return recorder.finish(guard.finish(step.x_next))
    if not bool(torch.isfinite(step.x_next).all()):
        raise NonfiniteError(f"the end points are not finite, after the step at t = {step.t}")
    return recorder.finish(step.x_next)


# ------------------------------------------------------------------------------ all blocks


def _sum_of_blocks(
    job: _Job,
    stats: BlockStats | None,
    kept: Path | None,
    progress: bool,
    executor: Executor | None,
    watch: Watch | None,
) -> BlockStats:
    """The blocks that are still to do, added to ``stats``; up to the first that breaks."""
    todo = range(0 if stats is None else stats.blocks, job.spec.blocks)
    with _bar(len(todo) * job.spec.steps, progress) as bar:
        for result in _blocks(job, todo, bar, executor, watch):
            try:
                stats = result if stats is None else stats.merge(result)
            except ValueError:
                raise RunFileError(f"{kept}: its arrays have other sizes than this run") from None
            del result  # tens of megabytes, freed before the next block is computed
            if (stats.ends < job.spec.steps).any():
                break
            if kept is not None and stats.blocks < job.spec.blocks:
                save_partial(kept, stats, job.spec)
    assert stats is not None
    return stats


def _blocks(
    job: _Job, todo: range, bar: tqdm, executor: Executor | None, watch: Watch | None
) -> Iterator[BlockStats]:
    """The blocks ``todo`` in their order."""

    def told(block: int, index: int, recorder: Recorder) -> None:
        bar.update()
        if watch is not None:
            watch(block, index, recorder)

    if executor is None:
        for block in todo:
            bar.set_description(f"block {block + 1} of {job.spec.blocks}")
            yield record_block(job, block, told)
        return
    # Only so many are sent ahead, so that few results wait for their turn.
    ahead = 2 * int(getattr(executor, "_max_workers", 0) or os.cpu_count() or 4)
    waiting: deque[Future[BlockStats]] = deque()
    upcoming, done = deque(todo), todo.start
    try:
        while done < todo.stop:
            while upcoming and len(waiting) < ahead:
                waiting.append(executor.submit(_block_of_worker, job, upcoming.popleft()))
            result = waiting.popleft().result()
            bar.update(job.spec.steps)
            done += 1
            yield result
    except BrokenExecutor as error:
        raise InputError(
            f"a worker was lost (killed, or out of memory) when {done} of {job.spec.blocks} "
            f"blocks were done: {error}"
        ) from None
    finally:
        for future in waiting:
            future.cancel()


def _block_of_worker(job: _Job, block: int) -> BlockStats:
    """A block as a worker computes it; a process of its own takes one torch thread."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    return record_block(job, block)


def _bar(total: int, visible: bool) -> tqdm:
    """A bar on standard error; a stream that is closed does not end the recording."""
    file = None if sys.stderr is None else SafeStream(sys.stderr)
    return tqdm(total=total, unit="step", file=file, disable=not visible or file is None)


def _finished(
    job: _Job,
    stats: BlockStats,
    start: float,
    out: str | Path | None = None,
    kept: Path | None = None,
) -> Run:
    """The run, saved where that was asked for.

    Raises:
        NonfiniteError: an arm stopped being finite.
    """
    schedule, spec = job.schedule, replace(job.spec, n=stats.n)
    times = schedule.times(spec.steps)
    std = coefficient_table(job.arms, schedule, times)[:, :, 2].T
    seconds = time.perf_counter() - start
    run = assemble(stats, spec, schedule, times, job.law, std, seconds, _answers(job))
    if out is not None and kept is not None:
        run.save(out)
        kept.unlink(missing_ok=True)
    if run.broken:
        t = max(run.broken.values())
        arms = ", ".join(name for name, when in run.broken.items() if when == t)
        hint = "; record with out= (--out) to keep the run" if out is None else f"; {out} holds it"
        raise NonfiniteError(
            f"a value is not finite at t = {t}, in the denoiser's answer or the state after it, "
            f"in arm {arms}{hint} up to there",
            run,
        )
    return run


def _answers(job: _Job) -> Answers:
    """How the denoiser answers when it is called again; after sampling, so as not to change it."""
    spec = job.spec
    if spec.steps * spec.n * len(job.arms) < MIN_SAMPLED:
        return Answers()
    return compare_answers(
        lambda: job.fresh(0),
        spec.sample_shape,
        int(job.schedule.times(spec.steps)[0]),
        spec.seed,
        context=None if job.context is None else torch.as_tensor(job.context),
        device=job.device,
    )


def _kept(path: Path, spec: RunSpec, resume: bool) -> BlockStats | None:
    if not path.exists():
        return None
    stats, found = load_partial(path)
    if not resume:
        raise InputError(
            f"{path}: holds {stats.blocks} of {found.blocks} blocks of an unfinished run; go on "
            "with resume, or delete it"
        )
    _check_same(found, spec, path)
    return stats


def _check_same(found: RunSpec, wanted: RunSpec, path: Path) -> None:
    for field in fields(wanted):
        before, now = getattr(found, field.name), getattr(wanted, field.name)
        if before != now:
            raise InputError(
                f"{path}: was recorded with {field.name} = {before!r}, now it is {now!r}; "
                "resume needs the same run"
            )
