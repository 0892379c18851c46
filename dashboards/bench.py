"""Processes that see through loops of the zoo, for the X-ray page.

The process that answers pages never samples. The first who opens the page starts a second one;
it looks at one loop at a time, what it has seen is kept, and when nobody has asked for a while it
ends and gives its memory back. Its work is in `specimens`, which only it imports.
"""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from threading import Lock, Thread, Timer

log = logging.getLogger("diffviz.dashboard")

IDLE = 180.0
"""Seconds without a question after which the second process ends."""


class Bench:
    """The second process, and what it has seen.

    Args:
        idle: seconds without a question after which the process ends.
    """

    def __init__(self, idle: float = IDLE) -> None:
        self.idle = idle
        self.pool: ProcessPoolExecutor | None = None
        self.answers: dict[str, Future[bytes]] = {}
        self.lock = Lock()
        self.rest: Timer | None = None

    def menu(self) -> Future[bytes]:
        """All loops with their words and lines, as gzipped JSON."""
        return self._ask("", menu)

    def look(self, name: str) -> Future[bytes]:
        """What is seen of the loop ``name``, as gzipped JSON; KeyError for an unknown one."""
        return self._ask(name, partial(look, name))

    def network(self, name: str) -> Future[bytes]:
        """Sprites that the loop makes with the shipped network, as gzipped JSON."""
        return self._ask(f"network {name}", partial(network, name))

    def _ask(self, key: str, work: Callable[[], bytes]) -> Future[bytes]:
        """The same work is never done twice, unless it has failed."""
        with self.lock:
            known = self.answers.get(key)
            if known is None or known.cancelled() or (known.done() and known.exception()):
                known = self.answers[key] = self._submit(work)
                known.add_done_callback(partial(self._drop_failed, key))
            return known

    def _drop_failed(self, key: str, answer: "Future[bytes]") -> None:
        if answer.cancelled() or answer.exception():
            self.answers.pop(key, None)

    def _submit(self, work: Callable[[], bytes]) -> Future[bytes]:
        if self.rest is not None:
            self.rest.cancel()
        self.rest = Timer(self.idle, self.end)
        self.rest.daemon = True
        self.rest.start()
        if self.pool is not None:
            with suppress(BrokenProcessPool):
                return self.pool.submit(work)
            log.warning("the process that sees through loops has ended; it starts anew")
        # Started afresh, not forked: a fork of a process whose libraries use threads can hang.
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, initializer=_settle)
        return self.pool.submit(work)

    def end(self) -> None:
        """End the process; the next question starts another."""
        with self.lock:
            pool, self.pool = self.pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


# -------------------------------------------------------------------- in the second process


def _settle() -> None:
    """One thread, pages come first, and the process ends with the one that started it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the server, which ends this
    Thread(target=_watch_parent, daemon=True).start()
    torch.set_num_threads(1)
    with suppress(OSError, AttributeError):
        os.nice(10)


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(3)


def menu() -> bytes:
    """See `specimens.menu`."""
    from dashboards import specimens

    return specimens.menu()


def look(name: str) -> bytes:
    """See `specimens.look`."""
    from dashboards import specimens

    return specimens.look(name)


def network(name: str) -> bytes:
    """See `specimens.network`."""
    from dashboards import specimens

    return specimens.network(name)
