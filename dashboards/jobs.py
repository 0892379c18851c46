"""Recordings in processes of their own: how many at once, how large, and where their runs go.

Dash forks a process for a background callback. That process only supervises: it waits for its
turn, starts a worker (`dashboards.worker`), which alone imports torch and whose memory is limited,
and says how it went, also when the worker is killed. Whatever dies, the server does not.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import diskcache
import psutil
from dash import DiskcacheManager

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
        self.manager = DiskcacheManager(self.cache)

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that record or look, and remove the folder."""
        server, ended = psutil.Process(), []
        for child in server.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                # A job of Dash is a fork of the server. Other children are not ours to end.
                if child.cmdline() == server.cmdline() or "dashboards.worker" in child.cmdline():
                    child.kill()
                    ended.append(child)
        psutil.wait_procs(ended, timeout=3)
        self.cache.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def request(self, form: dict[str, Any]) -> RecordRequest:
        """What a form in the browser orders. No value of it is a path.

        Raises:
            InputError: a value that is not allowed, or a recording that is too large.
        """
        values = {k: v for k, v in form.items() if v not in (None, "", [])}
        kind, numbers = values.pop("denoiser", "network"), values.pop("numbers", "")
        kind = kind if isinstance(kind, str) else repr(kind)
        if kind in FORMS:
            values["denoiser"] = f"{kind}:{numbers}"
        elif kind == "sprites":
            values["denoiser"] = "dataset:sprites"
        elif kind in self.files:
            values["denoiser"] = str(self.files[kind])
        elif kind != "network":
            allowed = ", ".join([*FORMS, "sprites", "network", *self.files])
            raise InputError(f"denoiser is {kind!r:.80}; allowed: {allowed}")
        unknown = set(values) & {"device", "executor", "block"}
        if unknown:
            raise InputError(f"{min(unknown)} is no part of an order from a browser")
        request = RecordRequest(**values)
        if len(request.arms) > 8:
            raise InputError(f"{len(request.arms)} arms; allowed are 1 to 8")
        seconds, memory = request.estimate()
        if memory > self.memory:
            raise InputError(
                f"this would take {memory / 2**20:.0f} MB of memory, and {self.memory / 2**20:.0f}"
                " are allowed; try fewer samples, steps or arms"
            )
        if seconds > SECONDS:
            raise InputError(
                f"this would take about {seconds / 60:.0f} minutes, and {SECONDS / 60:.0f} are "
                "allowed; try fewer samples, steps or arms"
            )
        if len(self.line()) >= WAITING:
            raise InputError(f"{WAITING} recordings are waiting already; try again in a while")
        return request

    def line(self, name: str = "record") -> list[int]:
        """Processes that work or wait in a queue, the first come first."""
        return [pid for pid in self.cache.get(f"line-{name}", ()) if _alive(pid)]

    def before(self, pid: int, name: str = "record") -> int:
        """How many of the queue have to end before this process may begin."""
        with self.cache.transact():
            line = self.line(name)
            if pid not in line:
                line.append(pid)
            self.cache[f"line-{name}"] = line
        return max(0, line.index(pid) - self.workers + 1)

    def record(self, run_id: str, form: dict[str, Any], language: str) -> Iterator[dict[str, Any]]:
        """Record into ``<run_id>.nc``, and say how it goes.

        Yields ``{"state": …}``: "waiting" with the number ``before``; "starting"; "sampling" with
        ``done``, ``total``, a ``figure`` and ``images``; "writing"; and at the end "done", or
        "wrong", "memory" or "crash" with a ``line``.
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
        path = self.folder / f"{run_id}.nc"
        order = {
            "request": request.model_dump(),
            "language": language,
            "memory": self.memory,
            "path": str(path),
        }
        command = [sys.executable, "-m", "dashboards.worker"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdin.write(json.dumps(order).encode() + b"\n")
            worker.stdin.flush()
            said: dict[str, Any] = {}
            for line in worker.stdout:
                said = json.loads(line)
                yield said
            worker.stdin.close()
        if said.get("state") not in ("done", "wrong", "memory", "crash"):
            # Linux kills the largest process when memory runs out.
            killed = worker.returncode == -signal.SIGKILL
            yield {"state": "memory" if killed else "crash", "line": ""}


def follow(jobs: Jobs, run_id: str, form: dict[str, Any], language: str, tell: Callable) -> dict:
    """Record, hand everything on the way to ``tell``, and give back how it ended."""
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    state: dict[str, Any] = {}
    for state in jobs.record(run_id, form, language):
        tell(state)
        jobs.cache.set(f"state-{run_id}", {"pid": os.getpid(), "state": state["state"]}, 86400)
    return state


def _end_with(server: int) -> None:
    """End this process, which holds the server's socket, when the server is gone."""
    while os.getppid() == server:
        time.sleep(0.5)
    os._exit(3)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
