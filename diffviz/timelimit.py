"""A limit on the time of code that somebody else wrote, also where it never comes back."""

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 0.1
"""Seconds after which a limit that was swallowed is raised again."""


@contextmanager
def time_limit(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """Raise ``error`` in the body once it has run for ``seconds``, again and again until it ends.

    In the main thread an alarm signal interrupts sleeping and waiting too; in another thread, and
    where the system has no such signal, the error comes with the next instruction of Python.
    """
    seconds = max(seconds, 1e-3)
    alarm = hasattr(signal, "setitimer")
    if alarm and threading.current_thread() is threading.main_thread():
        yield from _by_signal(seconds, error)
    else:
        yield from _by_thread(seconds, error)


def _by_signal(seconds: float, error: type[BaseException]) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise error

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
        if left:  # somebody else's alarm, as of a test runner, goes on
            left = max(left - (time.monotonic() - start), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


def _by_thread(seconds: float, error: type[BaseException]) -> Iterator[None]:
    target, done = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def ring() -> None:
        wait = seconds
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(error))
            wait = AGAIN

    bell = threading.Thread(target=ring, name="time-limit", daemon=True)
    bell.start()
    try:
        yield
    finally:
        done.set()
        bell.join()
