"""Recordings in processes of their own: how many at once, how large, and where their runs go.

A background callback has a process. That process only supervises: it waits for its turn, starts
a `worker`, which alone imports torch and whose memory is limited, and says how it went, also when
the worker is killed. Whatever dies, the server does not.

The processes are forked by a starter, which is forked before the server has threads. A process
that is forked while another thread is inside SQLite may inherit its lock, and then waits for ever.
"""

import atexit
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

import diskcache
import psutil
from dash import DiskcacheManager

from dashboards.worker import work
from diffviz.errors import InputError
from diffviz.recording.request import RecordRequest

MEMORY = 2048 * 2**20
"""Bytes that a worker may take at most."""
SECONDS = 1800.0
"""The longest recording that is started, by its estimate."""
WAITING = 20
"""Recordings that may wait."""
FORMS = ("gaussian", "mixture")
"""Denoisers whose law is given in numbers."""
ENDS = ("done", "wrong", "memory", "crash")
State = dict[str, Any]


class Jobs:
    """The folder, the limits and the queue of recordings; ends them all when it is closed.

    Args:
        checkpoints: files of weights that may be recorded with.
        workers: recordings at a time.
        memory: bytes of each; what the machine can spare unless given.
    """

    def __init__(
        self, checkpoints: Sequence[str | Path] = (), workers: int = 1, memory: float | None = None
    ) -> None:
        self.files = {f"file-{i}": Path(path) for i, path in enumerate(checkpoints)}
        for path in self.files.values():
            RecordRequest(denoiser=str(path))  # says what is wrong with it
        self.workers = workers
        spare = psutil.virtual_memory().available / (workers + 1)
        self.memory = min(MEMORY, spare) if memory is None else memory
        self.folder = Path(tempfile.mkdtemp(prefix="diffviz-"))  # for this user alone: 0700
        self.cache = diskcache.Cache(str(self.folder / "cache"))
        self.manager = _Manager(self.cache)

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that record or look, and remove the folder."""
        self.manager.close()
        self.cache.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def request(self, form: dict[str, Any]) -> RecordRequest:
        """What a form in the browser orders. No value of it is a path.

        Raises:
            InputError: a value that is not allowed, or a recording that is too large.
        """
        values = {k: v for k, v in form.items() if v not in (None, "", [])}
        kind, numbers = values.pop("denoiser", "network"), values.pop("numbers", "")
        words = {"sprites": "dataset:sprites"} | {name: str(at) for name, at in self.files.items()}
        words |= {name: f"{name}:{numbers}" for name in FORMS}
        if isinstance(kind, str) and kind in words:
            values["denoiser"] = words[kind]
        elif kind != "network":
            raise InputError(f"denoiser is {kind!r:.80}; allowed: network, {', '.join(words)}")
        if unknown := set(values) & {"device", "executor", "block"}:
            raise InputError(f"{min(unknown)} is no part of an order from a browser")
        request = RecordRequest(**values)
        if len(request.arms) > 8:
            raise InputError(f"{len(request.arms)} arms; allowed are 1 to 8")
        seconds, memory = request.estimate()
        for taken, allowed, scale, unit in (
            (memory, self.memory, 2**20, "MB of memory"),
            (seconds, SECONDS, 60, "minutes"),
        ):
            if taken > allowed:
                raise InputError(
                    f"this would take about {taken / scale:.0f} {unit}, and {allowed / scale:.0f} "
                    "are allowed; try fewer samples, steps or arms"
                )
        if len(self.line()) >= WAITING:
            raise InputError(f"{WAITING} recordings are waiting already; try again in a while")
        return request

    def line(self, name: str = "record") -> list[int]:
        """Processes that work or wait in a queue, the first come first."""
        return [pid for pid in self.cache.get(f"line-{name}", ()) if self.manager.job_running(pid)]

    def before(self, pid: int, name: str = "record") -> int:
        """How many of the queue have to end before this process may begin."""
        with self.cache.transact():
            line = self.line(name)
            if pid not in line:
                line.append(pid)
            self.cache[f"line-{name}"] = line
        return max(0, line.index(pid) - self.workers + 1)

    def record(self, run_id: str, form: dict[str, Any], language: str) -> Iterator[State]:
        """Record into ``<run_id>.nc``, and say how it goes.

        Yields ``{"state": …}``: "waiting" with the number ``before``; "starting"; "sampling" with
        ``done``, ``total``, a ``figure`` and ``images``; "writing"; and at the end one of
        ``ENDS``, "wrong" with a ``line``.
        """
        try:
            request = self.request(form)
        except InputError as error:
            yield {"state": "wrong", "line": str(error)}
            return
        while before := self.before(os.getpid()):
            yield {"state": "waiting", "before": before}
            time.sleep(0.5)
        yield {"state": "starting"}
        fresh = multiprocessing.get_context("spawn")
        answers, told = fresh.Pipe(duplex=False)
        path = self.folder / f"{run_id}.nc"
        worker = fresh.Process(target=work, args=(told, request, language, self.memory, path))
        worker.start()
        told.close()
        said: State = {}
        with suppress(EOFError):
            while True:
                said = answers.recv()
                yield said
        worker.join()
        if said.get("state") not in ENDS:
            # Linux kills the largest process when memory runs out.
            yield {"state": "memory" if worker.exitcode == -signal.SIGKILL else "crash"}


class _Manager(DiskcacheManager):
    """Dash's own, whose jobs are forked by a process with one thread."""

    def __init__(self, cache: diskcache.Cache) -> None:
        super().__init__(cache)
        self._starter: BaseProcess | None = None
        self._free = multiprocessing.get_context("fork").Lock()

    def begin(self) -> None:
        """Fork the starter. Jobs see the application as it is now."""
        self.handle.close()  # a connection does not survive a fork; it is opened again when used
        fork = multiprocessing.get_context("fork")
        self._orders, theirs = fork.Pipe()
        self._starter = fork.Process(target=self._start_jobs, args=(theirs,), daemon=False)
        self._starter.start()
        theirs.close()
        atexit.register(self.close)  # else the interpreter would wait for the starter

    def _start_jobs(self, orders: Connection) -> None:
        """Fork a job for each order, until whoever orders is gone."""
        self._orders.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in a terminal goes to all of them
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for a job
        with suppress(EOFError):
            while True:
                name, *values = orders.recv()
                pid = os.fork()
                if pid == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    orders.close()
                    self.func_registry[name](*values)
                    return
                orders.send(pid)

    def call_job_fn(self, key: Any, job_fn: Any, args: Any, context: Any) -> int:
        name = next(name for name, known in self.func_registry.items() if known is job_fn)
        with self._free:
            self._orders.send((name, key, self._make_progress_key(key), args, context))
            return self._orders.recv()

    def job_running(self, job: Any) -> bool:
        with suppress(psutil.NoSuchProcess):  # it may end while it is looked at
            return super().job_running(job)
        return False

    def close(self) -> None:
        """End the starter and all its jobs."""
        if self._starter is not None:
            self._orders.close()
            self.terminate_job(self._starter.pid)
            self._starter.join()
            self._starter = None
            atexit.unregister(self.close)


def follow(jobs: Jobs, run_id: str, form: dict[str, Any], language: str, tell: Callable) -> State:
    """Record, hand everything on the way to ``tell``, and give back how it ended."""
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    state: State = {}
    for state in jobs.record(run_id, form, language):
        tell(state)
        jobs.cache.set(f"state-{run_id}", {"pid": os.getpid(), "state": state["state"]}, 86400)
    return state


def _end_with(starter: int) -> None:
    """End this process, which holds the server's socket, when the starter is gone."""
    while os.getppid() == starter:
        time.sleep(0.5)
    os._exit(3)
