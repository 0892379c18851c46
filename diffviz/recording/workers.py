"""Workers: executors for `diffviz.recording.record` that outlive the loss of one of them.

A block depends on nothing but its job and its number, so whoever computes it gets the same bits,
and a block lost with its worker is simply computed again. ``ProcessWorkers`` are processes of this
machine, ``DaskWorkers`` those of a Dask cluster. Both tell how many steps have been taken, while
blocks are still under way.
"""

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
)
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Any

from diffviz.errors import InputError

LOSSES = 3
"""How often in a row workers may be lost before a block is given up."""
PATIENCE = 60.0
"""Seconds for which a cluster may be without any worker."""
TOPIC = "diffviz-steps"
PLACES = 1024
"""Counters of steps; processes whose numbers agree modulo this share one, and may lose a step."""


class Workers(Executor):
    """An executor that can be renewed and tells of steps; see the module.

    Attributes:
        count: how many blocks it computes at a time.
        losses: what a future raises when its worker was lost.
    """

    count: int
    losses: tuple[type[BaseException], ...] = (BrokenExecutor,)

    def steps(self) -> int:
        """Steps taken by all workers so far."""
        raise NotImplementedError

    def renew(self) -> None:
        """Replace workers that were lost. What was submitted to them must be submitted again."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise InputError when there is nobody left to wait for."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Leave at once, not after the blocks under way, when something went wrong."""
        self.shutdown(wait=kind is None, cancel_futures=kind is not None)
        return None


class ProcessWorkers(Workers):
    """``count`` processes of this machine."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Forking a process that has used torch's threads hangs, so workers start afresh.
        self._context = multiprocessing.get_context("spawn")
        # One place per process and no lock, which a killed process would hold for ever.
        self._counts = self._context.RawArray("q", PLACES)
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.count, self._context, initializer=_settle, initargs=(self._counts,)
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `concurrent.futures.Executor.submit`."""
        return self._pool.submit(fn, *args, **kwargs)

    def steps(self) -> int:
        """Steps taken by all workers so far."""
        return sum(self._counts)

    def check(self) -> None:
        """End all processes when one of them is gone, so that the pool knows itself broken."""
        sentinels = [process.sentinel for process in self._processes()]
        if sentinels and multiprocessing.connection.wait(sentinels, timeout=0):
            self._end()

    def renew(self) -> None:
        """Begin with new processes."""
        self.shutdown(wait=False)
        self._pool = self._new()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `concurrent.futures.Executor.shutdown`; without ``wait`` processes are ended.

        Then all that waits fails with them and needs no cancelling, which the pool's own thread
        would stumble over: it sets an exception on every future (mended only in later Pythons).
        """
        if not wait:
            self._end()
        self._pool.shutdown(wait=wait, cancel_futures=wait and cancel_futures)

    def _processes(self) -> list[Any]:
        return list((getattr(self._pool, "_processes", None) or {}).values())

    def _end(self) -> None:
        """Kill the processes, and let go of the pipe of results that they write to.

        The pool reads from that pipe and holds its other end as well: after half a result, from a
        process that was killed while it wrote, it would wait for the rest for ever.
        """
        processes = self._processes()
        for process in processes:
            process.kill()
        multiprocessing.connection.wait([process.sentinel for process in processes], timeout=5)
        results = getattr(self._pool, "_result_queue", None)
        if results is not None and not results._writer.closed:
            results._writer.close()


class DaskWorkers(Workers):
    """The workers of the Dask cluster whose scheduler listens at ``host:port``.

    A worker that is lost loses its blocks; the scheduler gives them to others.

    Raises:
        InputError: dask.distributed is not installed, or nobody answers there.
    """

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        try:
            from distributed import Client
            from distributed.client import FutureCancelledError
            from distributed.scheduler import KilledWorker
        except ImportError:
            raise InputError(
                f"executor is 'dask://{address}', and dask.distributed is not installed; "
                "install diffviz[dask]"
            ) from None
        self.address = address
        # A block is cancelled when every worker that held the job is gone.
        self.losses = (KilledWorker, FutureCancelledError, CancelledError)
        try:
            self._client = Client(f"tcp://{address}", timeout=timeout, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"executor is 'dask://{address}': no Dask scheduler answers there "
                f"({type(error).__name__}); start one with: dask scheduler"
            ) from None
        self._executor = self._client.get_executor(pure=False)
        self._job: tuple[Any, Any] = (None, None)
        self._steps = self._submitted = 0
        self._seen = time.monotonic()
        self._asked = 0.0
        self._client.subscribe_topic(TOPIC, self._count)
        self.count = max(1, sum(self._client.nthreads().values()))

    def _count(self, event: tuple[float, int]) -> None:
        self._steps += int(event[1])

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `concurrent.futures.Executor.submit`; the first argument is sent only once."""
        job, *rest = args
        if job is not self._job[0]:
            # Everywhere before the first block, so that blocks start in their order and none
            # waits at one worker while another is idle.
            try:
                sent = self._client.scatter(job, broadcast=True, hash=False, timeout=PATIENCE)
            except TimeoutError:
                raise self._nobody() from None
            except OSError:
                raise self._gone() from None
            self._job = (job, sent)
        self._submitted += 1
        return self._executor.submit(fn, self._job[1], *rest, priority=-self._submitted, **kwargs)

    def steps(self) -> int:
        """Steps that workers have told of so far."""
        return self._steps

    def renew(self) -> None:
        """Nothing to do but to send the job again; the cluster looks after its workers."""
        self._job = (None, None)

    def check(self) -> None:
        """Raise InputError when the cluster has been without workers for ``PATIENCE`` seconds."""
        now = time.monotonic()
        if now - self._asked < 5:
            return
        self._asked = now
        try:
            if self._client.nthreads():
                self._seen = now
        except OSError:
            raise self._gone() from None
        if now - self._seen > PATIENCE:
            raise self._nobody()

    def _gone(self) -> InputError:
        return InputError(f"dask://{self.address}: the scheduler is gone")

    def _nobody(self) -> InputError:
        return InputError(
            f"dask://{self.address}: no worker for {PATIENCE:g} s; start one with: "
            f"dask worker {self.address}"
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, which stays; with ``cancel_futures`` blocks under way are dropped."""
        with suppress(Exception):  # it may be gone already
            self._executor.shutdown(wait=wait)
        self._job = (None, None)
        self._client.close(timeout=5)


def hold_memory() -> None:
    """Let this process keep what it frees for its next array, where its C library is glibc.

    Dask starts workers with ``MALLOC_TRIM_THRESHOLD_`` = 64 KiB: then the pages of every array of
    every step are asked for anew, and a block takes three times as long.
    """
    trim_threshold, mmap_threshold = -1, -3  # of <malloc.h>
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**28)
        mallopt(mmap_threshold, 2**25)


def worker_progress() -> Callable[[], None]:
    """What a block calls after each step, in whichever kind of worker it finds itself."""
    if _shared is not None:
        return _tick
    if "distributed" in sys.modules:
        with suppress(ImportError, ValueError):
            from distributed import get_worker

            return _Messages(get_worker())
    return lambda: None


_shared: Any = None


def _settle(counts: Any) -> None:
    """Begin life as a worker process."""
    global _shared
    _shared = counts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who waits
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _tick() -> None:
    _shared[os.getpid() % PLACES] += 1


class _Messages:
    """Tells a Dask scheduler of steps, at most twice a second."""

    def __init__(self, worker: Any) -> None:
        self.worker, self.steps, self.told = worker, 0, time.monotonic()

    def __call__(self) -> None:
        self.steps += 1
        now = time.monotonic()
        if now - self.told > 0.5:
            self.worker.log_event(TOPIC, self.steps)
            self.steps, self.told = 0, now


def executor(text: str | None) -> AbstractContextManager[Workers | None]:
    """The workers of that name, let go at the end; None is this process."""
    if text is None:
        return nullcontext()
    kind, _, rest = text.partition(":")
    if kind == "processes" and rest.isdecimal() and 1 <= int(rest) <= 256:
        return ProcessWorkers(int(rest))
    host, _, port = rest.removeprefix("//").rpartition(":")
    if kind == "dask" and rest.startswith("//") and host and port.isdecimal():
        return DaskWorkers(f"{host}:{port}")
    raise InputError(
        f"executor is {text!r}; allowed: processes:N with N from 1 to 256, dask://HOST:PORT"
    )
