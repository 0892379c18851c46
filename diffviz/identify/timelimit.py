"""A limit on the time of code that somebody else wrote, also where it never comes back."""

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import _GeneratorContextManager, contextmanager
from types import FrameType

AGAIN = 0.1
"""Seconds after which a limit that was swallowed is raised again."""
PATIENT, HASTY = 10, 1e-4
"""How often that is done calmly, and the seconds from then on: so short that the error also comes
where code that catches everything is just not looking, on its way to the next round."""


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
    leaving = {_by_signal.__code__, _GeneratorContextManager.__exit__.__code__}
    rings = 0

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal rings
        rings += 1
        if rings == PATIENT:
            signal.setitimer(signal.ITIMER_REAL, HASTY, HASTY)
        if frame is None or frame.f_code not in leaving:
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
        wait, rings = seconds, 0
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(error))
            rings += 1
            wait = AGAIN if rings < PATIENT else HASTY

    bell = threading.Thread(target=ring, name="time-limit", daemon=True)
    bell.start()
    try:
        yield
    finally:
        done.set()
        bell.join()
