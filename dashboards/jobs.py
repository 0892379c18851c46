"""Jobs: recordings that browsers have ordered, each in a process of its own.

A job waits, runs and ends. Its process (`dashboards.worker`) is started for it and ends with it,
so the memory that it took is given back, and what goes wrong there stays there. The server learns
of it by lines of JSON and holds nothing but those; the run itself stays in files.

Who ordered a job is its owner, an unguessable word in a cookie that scripts cannot read. Every
question about a job names the owner, and to others the job does not exist.

Turn: of the owners with the fewest jobs running the one who was served longest ago, and of those
never served the one whose job has waited longest. So nobody waits for all jobs of another.
"""

import atexit
import contextlib
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock, Thread, Timer
from typing import Any

from dashboards.order import (
    MEMORY,
    SECONDS,
    SHIPPED,
    START,
    WRITING,
    Model,
    Order,
    Refused,
)
from dashboards.worker import FILES
from diffviz.errors import CheckpointError, InputError
from diffviz.recording.run import Run

log = logging.getLogger("diffviz.dashboard")

MOST_WAITING, MOST_OWN = 60, 6
"""Jobs that may wait or run, of all browsers and of one."""
MOST_KEPT, MOST_SHOWN = 20, 400
"""Jobs that are remembered, of one browser and of all."""
FOLDER_BYTES = 2**30
RUN_BYTES = 2**28
PATIENCE = 4.0
"""A job may take this many times its estimate, and not less than five minutes."""
LEAST_LEARNED = 3.0
"""Seconds of sampling from which the next estimate learns; shorter ones are mostly warming up."""
ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Job:
    """One recording. ``state`` is "waiting", "running", "done", "failed" or "cancelled".

    Attributes:
        phase: of a running job: "starting", "sampling" or "writing".
        failure: why it failed, a name of the catalogue: "wrong", "memory", "killed", "crash",
            "time" or "stopped"; ``line`` says more, in one line.
        incomplete: the run is whole and its worker has ended, but not all files were written.
        points: told by the worker for the block in progress: [t, [statistic][arm]].
        files: which of ``FILES`` are whole.
        changed: counts up with every change, so that a page is told of news only.
    """

    id: str
    owner: str
    name: str
    order: Order
    seconds: float
    memory: float
    folder: Path
    made: float = field(default_factory=time.time)
    state: str = "waiting"
    phase: str = "starting"
    failure: str = ""
    line: str = ""
    incomplete: bool = False
    started: float = 0.0
    sampling_since: float = 0.0
    sampled: float = 0.0
    ended: float = 0.0
    done: int = 0
    block: int = 0
    facts: dict[str, Any] | None = None
    points: list[Any] = field(default_factory=list)
    files: tuple[str, ...] = ()
    bytes: int = 0
    changed: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("waiting", "running")

    @property
    def total(self) -> int:
        """Steps of all blocks."""
        return self.order.steps * -(-self.order.n // self.order.block)


class Jobs:
    """All jobs of a server.

    Args:
        models: the denoisers that may be ordered.
        workers: how many jobs run at a time.
        memory: bytes that a worker may take.
        seconds: the longest job that is taken, by its estimate.
        folder_bytes: of all runs kept; beyond, the oldest of whoever keeps most are removed.
    """

    def __init__(
        self,
        models: Sequence[Model] = SHIPPED,
        *,
        workers: int = 1,
        memory: float = MEMORY,
        seconds: float = SECONDS,
        folder_bytes: float = FOLDER_BYTES,
    ) -> None:
        self.models, self.workers = tuple(models), workers
        self.memory, self.seconds, self.folder_bytes = memory, seconds, folder_bytes
        self.closing = False
        self._lock = RLock()
        self._jobs: dict[str, Job] = {}
        self._threads: dict[str, Thread] = {}
        self._folder: Path | None = None
        self._pace: dict[str, float] = {}  # how much longer than on an ordinary core
        self._beside = START + WRITING  # seconds of a job in which it does not sample

    # -------------------------------------------------------------- asked by pages

    def price(self, order: Order) -> tuple[float, float]:
        """(seconds, bytes) that the order will take, learned from the jobs before.

        Raises:
            Refused: more than a job may take.
        """
        pace = self._pace.get(order.model.id, 1.0)
        seconds = self._beside + order.seconds() * pace
        memory = order.memory()
        if memory > self.memory:
            raise Refused("memory", given=_megabytes(memory), most=_megabytes(self.memory))
        if seconds > self.seconds:
            raise Refused("seconds", given=round(seconds / 60), most=round(self.seconds / 60))
        return seconds, memory

    def submit(self, order: Order, owner: str) -> Job:
        """Take the order; it waits for its turn.

        Raises:
            Refused: too much for one job, or too many jobs already.
        """
        seconds, memory = self.price(order)
        with self._lock:
            active = [job for job in self._jobs.values() if job.active]
            if self.closing:
                raise Refused("closing")
            if sum(job.owner == owner for job in active) >= MOST_OWN:
                raise Refused("own", most=MOST_OWN)
            if len(active) >= MOST_WAITING:
                raise Refused("queue", most=MOST_WAITING)
            key = secrets.token_urlsafe(12)
            names = {job.name for job in self._jobs.values() if job.owner == owner}
            name, number = order.name, 2
            while name in names:
                name, number = f"{order.name} ({number})", number + 1
            folder = self._home() / key
            self._jobs[key] = Job(key, owner, name, order, seconds, memory, folder)
            self._forget(owner)
            self._start_waiting()
            return self._jobs[key]

    def find(self, key: str, owner: str) -> Job | None:
        """The job, if it is there and the owner's."""
        job = self._jobs.get(key)
        return job if job is not None and job.owner == owner and owner else None

    def cancel(self, key: str, owner: str) -> bool:
        """End a job that waits or runs; or, once it has ended, remove it and its files."""
        with self._lock:
            job = self.find(key, owner)
            if job is None:
                return False
            if job.active:
                self._end(job, "cancelled")
                self._start_waiting()
            else:
                self._remove(job)
            return True

    def owned(self, owner: str) -> list[Job]:
        """The owner's jobs, the newest first."""
        with self._lock:
            return [job for job in reversed(self._jobs.values()) if owner and job.owner == owner]

    def file(self, key: str, owner: str, name: str) -> Path | None:
        """A file of a job, by its name in ``FILES``."""
        job = self.find(key, owner)
        if job is None or name not in FILES or name not in job.files:
            return None
        path = job.folder / FILES[name]
        return path if path.is_file() else None

    def runs(self, owner: str) -> list[dict[str, str]]:
        """The finished runs of the owner, the newest first."""
        kept = [job for job in self.owned(owner) if "payload" in job.files]
        return [{"id": job.id, "name": job.name} for job in kept]

    def run(self, key: str, owner: str) -> tuple[str, Run] | None:
        """(name, run), read from its file."""
        job, path = self.find(key, owner), self.file(key, owner, "run")
        if job is None or path is None:
            return None
        try:
            return job.name, Run.load(path)
        except InputError:  # removed meanwhile
            return None

    def view(self, job: Job) -> dict[str, Any]:
        """What the page of its owner shows of a job, without its curves."""
        now = time.time()
        fraction = job.done / max(job.total, 1)
        left = self._left(job, now) if job.active else None
        return {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "phase": job.phase,
            "position": self._position(job),
            "fraction": round(fraction, 4),
            "left": None if left is None else round(left, 1),
            "took": round((job.ended or now) - job.started, 1) if job.started else None,
            "failure": job.failure,
            "line": job.line,
            "incomplete": job.incomplete,
            "files": [name for name in job.files if name != "payload"],
            "bytes": job.bytes,
            "open": "payload" in job.files,
            "block": job.block + 1,
            "blocks": -(-job.order.n // job.order.block),
            "arms": list(job.order.arms),
        }

    def _left(self, job: Job, now: float) -> float:
        """Seconds until an active job will have ended, those before its turn included."""
        if job.state == "waiting":
            queue = self._queue()
            running = (j for j in self._jobs.values() if j.state == "running")
            before = [self._left(j, now) for j in running]
            before += [j.seconds for j in queue[: queue.index(job)]]
            return sum(before) / max(self.workers, 1) + job.seconds
        if job.phase == "sampling" and job.done > 2:
            rate = (now - job.sampling_since) / job.done
            return (job.total - job.done) * rate + WRITING
        return max(job.seconds - (now - job.started), 1.0)

    def news(self, owner: str, seen: dict[str, Any]) -> dict[str, Any] | None:
        """What has changed since the last call with this ``seen``, which is kept up to date.

        The jobs of the owner, and the points that were told since; None for no news.
        """
        with self._lock:
            jobs = self.owned(owner)
            moved = [(job.id, job.changed, self._position(job)) for job in jobs]
            if seen.get("jobs") == moved:
                return None
            seen["jobs"] = moved
            curves = {}
            for job in jobs:
                block, count = seen.get(job.id, (0, 0))
                if block != job.block:
                    count = 0
                if count < len(job.points):
                    fresh = job.points[count:]
                    curves[job.id] = {"from": count, "points": fresh}
                seen[job.id] = (job.block, len(job.points))
            return {"jobs": [self.view(job) for job in jobs], "curves": curves}

    def counts(self) -> dict[str, int]:
        """How many jobs run and wait."""
        states = [job.state for job in list(self._jobs.values())]
        return {state: states.count(state) for state in ("running", "waiting")}

    def close(self) -> None:
        """End all workers, wait for them, and remove the runs."""
        with self._lock:
            self.closing = True
            for job in list(self._jobs.values()):
                if job.active:
                    self._end(job, "failed", "stopped")
                elif job.process is not None:  # still writing the last of its files
                    job.process.kill()
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(5)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # -------------------------------------------------------------- the queue

    def _home(self) -> Path:
        """The folder of this server, made when it is first needed."""
        if self._folder is None or not self._folder.is_dir():  # a cleaner may have taken it
            parent = Path(tempfile.gettempdir())
            for stale in parent.glob("diffviz-runs-*-*"):
                pid = stale.name.split("-")[2]
                if pid.isdecimal() and not _alive(int(pid)):
                    shutil.rmtree(stale, ignore_errors=True)
            atexit.register(self.close)
            self._folder = Path(tempfile.mkdtemp(prefix=f"diffviz-runs-{os.getpid()}-"))
        return self._folder

    def _position(self, job: Job) -> int | None:
        """1 for the job whose turn is next; None for one that does not wait."""
        if job.state != "waiting":
            return None
        return self._queue().index(job) + 1

    def _queue(self) -> list[Job]:
        """Waiting jobs in the order of their turns, were nothing else to happen."""
        waiting = [job for job in self._jobs.values() if job.state == "waiting"]
        busy: Counter[str] = Counter()
        served: dict[str, float] = {}
        for job in self._jobs.values():
            busy[job.owner] += job.state == "running"
            served[job.owner] = max(served.get(job.owner, 0.0), job.started)
        turns: list[Job] = []
        while waiting:  # the first of equals has waited longest
            chosen = min(waiting, key=lambda job: (busy[job.owner], served[job.owner]))
            waiting.remove(chosen)
            busy[chosen.owner] += 1
            served[chosen.owner] = time.time() + len(turns)
            turns.append(chosen)
        return turns

    def _start_waiting(self) -> None:
        running = sum(job.state == "running" for job in self._jobs.values())
        for job in self._queue()[: max(self.workers - running, 0)]:
            job.state, job.started = "running", time.time()
            job.changed += 1
            thread = Thread(target=self._tend, args=(job,), name=f"job {job.id}", daemon=True)
            self._threads[job.id] = thread
            thread.start()

    def _tend(self, job: Job) -> None:
        """From start to end of a job's process, in a thread of its own."""
        timer = Timer(max(300.0, PATIENCE * job.seconds), self._out_of_time, (job,))
        timer.daemon = True
        timer.start()
        try:
            job.folder.mkdir(exist_ok=True)
            process = start_worker()
            with self._lock:
                job.process = process
                if job.state != "running":
                    process.kill()
            told = {
                "do": "record",
                "order": job.order.told() | {"name": job.name},
                "folder": str(job.folder),
                "threads": _threads(self.workers),
                "memory": max(self.memory, job.memory),
                "limit": RUN_BYTES,
            }
            for said in converse(process, told):
                self._hear(job, said)
            status = process.wait()
            with self._lock:
                if job.state == "running":
                    self._end(job, "failed", "killed", f"status {status}")
        except Exception:
            log.exception("job %s", job.id)
            self._end(job, "failed", "crash")
        finally:
            timer.cancel()
            with self._lock:
                self._threads.pop(job.id, None)
                job.process = None
                if job.state == "done" and "html" not in job.files:
                    job.incomplete, job.changed = True, job.changed + 1
                if job.state != "done":
                    shutil.rmtree(job.folder, ignore_errors=True)
                if not self.closing:
                    self._start_waiting()

    def _hear(self, job: Job, said: dict[str, Any]) -> None:
        """One line of a worker."""
        with self._lock:
            job.changed += 1
            kind = said["say"]
            if job.state not in ("running", "done"):
                return
            if kind == "begin":
                job.facts, job.phase, job.sampling_since = said, "sampling", time.time()
            elif kind == "points":
                if said["block"] != job.block:
                    job.block, job.points = said["block"], []
                job.done = said["done"]
                job.points = [*job.points, *said["points"]]
            elif kind == "writing":
                job.phase, job.sampled = "writing", time.time() - job.sampling_since
            elif kind == "run":
                job.bytes, job.files = said["bytes"], ("run", "payload")
                self._finish(job, "done")
                self._learn(job)
                self._make_room(job)
            elif kind == "file":
                job.files = (*job.files, said["name"])
            elif job.state == "done":
                job.line = said.get("line", "") if kind == "wrong" else ""
                log.warning(
                    "job %s: %s after its run was whole: %s", job.id, kind, said.get("line")
                )
            else:
                line = said.get("line", "")
                if kind == "crash":
                    log.error("job %s crashed:\n%s", job.id, line)
                    line = ""
                self._end(job, "failed", kind, line)

    def _learn(self, job: Job) -> None:
        """How long jobs take here; half of it from the last one."""
        self._beside = (self._beside + job.ended - job.started - job.sampled) / 2
        if job.sampled < LEAST_LEARNED:
            return
        factor = job.sampled / max(job.order.seconds(), 1e-9)
        before = self._pace.get(job.order.model.id, factor)
        self._pace[job.order.model.id] = min(max((before + factor) / 2, 0.02), 50.0)

    def _out_of_time(self, job: Job) -> None:
        with self._lock:
            if job.state == "running":
                self._end(job, "failed", "time")

    def _end(self, job: Job, state: str, failure: str = "", line: str = "") -> None:
        """The job is over; its process, if it has one, too."""
        with self._lock:
            job.failure, job.line = failure, " ".join(line.split())[:300]
            self._finish(job, state)
            if job.process is not None:
                with contextlib.suppress(OSError):
                    job.process.kill()
        if state == "failed":
            log.warning("job %s failed: %s %s", job.id, failure, job.line)

    def _finish(self, job: Job, state: str) -> None:
        job.state, job.ended = state, time.time()
        job.changed += 1

    # -------------------------------------------------------------- what is kept

    def _remove(self, job: Job) -> None:
        if job.process is not None:  # still writing the last of its files
            with contextlib.suppress(OSError):
                job.process.kill()
        self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def _forget(self, owner: str) -> None:
        """Remove the oldest jobs that have ended, where there are too many."""
        ended = [job for job in self._jobs.values() if not job.active]
        own = [job for job in ended if job.owner == owner]
        for job in (*own[: max(len(own) - MOST_KEPT, 0)], *ended[: len(ended) - MOST_SHOWN]):
            self._remove(job)

    def _make_room(self, newest: Job) -> None:
        """Keep within ``folder_bytes``; the run that has just been made is the last to go."""
        kept = [job for job in self._jobs.values() if job.bytes and job is not newest]
        while kept and sum(job.bytes for job in kept) + newest.bytes > self.folder_bytes:
            most = max(kept, key=lambda job: sum(j.bytes for j in kept if j.owner == job.owner))
            oldest = next(job for job in kept if job.owner == most.owner)
            kept.remove(oldest)
            log.info("job %s: its run is removed to make room", oldest.id)
            self._remove(oldest)


# ------------------------------------------------------------------ workers


def start_worker() -> subprocess.Popen[bytes]:
    """A fresh process that waits for a job on its standard input.

    It has a session of its own, so Ctrl+C in the terminal reaches the server alone, and it takes
    modules from where this process has them, never from the current folder.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "dashboards.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"},
    )


def converse(process: subprocess.Popen[bytes], job: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Tell a worker its job and yield what it answers, until it ends."""
    assert process.stdin is not None and process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # the half line of a worker that was killed
                yield json.loads(line)
    finally:
        process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait()


def described(paths: Sequence[Path]) -> list[Model]:
    """Models of the files, each looked at by a process of its own.

    Raises:
        CheckpointError: a file that is no checkpoint.
    """
    models = []
    for i, path in enumerate(paths):
        told = {"do": "describe", "path": str(path.resolve())}
        said = next(iter(converse(start_worker(), told)), {"say": "killed"})
        if said["say"] == "wrong":
            raise CheckpointError(said["line"].replace(str(path.resolve()), str(path)))
        if said["say"] != "denoiser":
            raise InputError(f"{path}: reading it failed ({said['say']})")
        models.append(
            Model(
                id=f"checkpoint-{i + 1}",
                name=path.stem[:60],
                kind="network",
                source=str(path.resolve()),
                classes=tuple(said["classes"]),
                T=said["T"],
                shape=tuple(said["shape"]),
            )
        )
    return models


def _threads(workers: int) -> int:
    """Threads of one worker: all cores but one, shared out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, ((cores or 1) - 1) // workers)


def _megabytes(size: float) -> int:
    return round(size / 2**20)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
