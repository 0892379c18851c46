"""Executors by name: ``processes:N`` of this machine, or the workers of a Dask cluster.

A block depends on its job and its number alone, so every worker gets the same bits, and
`record` takes any `concurrent.futures.Executor`. A worker that is lost ends the recording; its
finished blocks are kept, and resuming goes on from them.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from contextlib import contextmanager

from diffviz.errors import InputError

PROCESSES = 256
PATIENCE = 10.0
"""Seconds for which a scheduler may be silent."""


@contextmanager
def executor(text: str | None) -> Iterator[Executor | None]:
    """The executor of that name, ended with the block; None is this process.

    Raises:
        InputError: a name that means nothing, or a cluster that does not answer.
    """
    kind, _, rest = (text or "").partition(":")
    host, _, port = rest.removeprefix("//").rpartition(":")
    if text is None:
        yield None
    elif kind == "processes" and rest.isdecimal() and 1 <= int(rest) <= PROCESSES:
        # Forking a process that has used torch's threads hangs, so workers start afresh.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(int(rest), context, initializer=_begin)
        try:
            yield pool
        except BaseException:
            _kill(pool)
            raise
        pool.shutdown()
    elif kind == "dask" and rest.startswith("//") and host and port.isdecimal():
        client, lost = _dask_client(f"{host}:{port}")
        try:
            yield client.get_executor(pure=False)
        except lost as error:
            raise InputError(f"dask://{host}:{port}: its workers were lost: {error}") from None
        finally:
            client.close(timeout=5)
    else:
        raise InputError(
            f"executor is {text!r:.80}; allowed: processes:N with N from 1 to {PROCESSES}, "
            "dask://HOST:PORT"
        )


def _dask_client(address: str):  # type: ignore[no-untyped-def] # distributed is optional
    try:
        from distributed import Client
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise InputError(
            f"executor is 'dask://{address}', and dask.distributed is not installed; "
            "install diffviz[dask]"
        ) from None
    try:
        client = Client(f"tcp://{address}", timeout=PATIENCE, set_as_default=False)
        return client, (KilledWorker, FutureCancelledError, CancelledError)
    except (OSError, ValueError) as error:
        raise InputError(
            f"executor is 'dask://{address}': no Dask scheduler answers there "
            f"({type(error).__name__}); start one with: dask scheduler"
        ) from None


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the processes now, not after the blocks under way."""
    for process in list((pool._processes or {}).values()):
        process.kill()
    results = getattr(pool, "_result_queue", None)
    if results is not None:  # else the pool would wait for the rest of a result
        results._writer.close()
    pool.shutdown(wait=False)


def _begin() -> None:
    """Prepare a worker process, so that it ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
