"""The process that records: ``python -m dashboards.worker``, started by the server per job.

It reads one line of JSON, the job, from standard input and answers in lines of JSON on standard
output. When standard input ends, the server is gone, and so is the worker: none is left behind.
It takes no more memory than it is told to, so that too large a job fails here and not elsewhere.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

Say = Callable[..., None]
POINTS = 320
"""Steps at most that are told of, evenly spread."""
PAUSE = 0.15
"""Seconds between two answers while it samples."""
FILES = {
    "run": "run.nc",
    "payload": "payload.json.gz",
    "csv": "curves.csv",
    "png": "images.png",
    "html": "report.html",
}
"""What is written into the job's folder, by the names that the page knows."""


def main() -> None:
    """Do the one job, and say how it went."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer

    def say(kind: str, **values: Any) -> None:
        answers.write(json.dumps({"say": kind, **values}) + "\n")

    job = json.loads(sys.stdin.buffer.readline())
    Thread(target=_watch_server, daemon=True).start()
    with suppress(OSError, AttributeError):
        os.nice(10)  # pages first
    from diffviz.errors import InputError

    try:
        {"record": _record, "describe": _describe}[job["do"]](job, say)
    except Exception as error:
        # torch says it so when an allocation fails, also from within a denoiser
        short = isinstance(error, MemoryError) or any(
            words in f"{error} {error.__cause__}" for words in ("allocate memory", "bad_alloc")
        )
        if short:
            say("memory")
        elif isinstance(error, InputError):
            # Where this server keeps its files is not for the browser.
            place = str(job.get("folder", ""))
            say("wrong", line=str(error).replace(place + os.sep, "") if place else str(error))
        else:
            say("crash", line=traceback.format_exc(limit=-3))
    answers.flush()
    os._exit(0)  # threads of libraries need not be waited for


def _watch_server() -> None:
    sys.stdin.buffer.read()
    os._exit(3)


def _limit_memory(allowed: float) -> None:
    """``allowed`` bytes of its own in all; and the first to go when the machine is out of memory.

    Elsewhere than on Linux the estimate before the start is all there is.
    """
    if sys.platform != "linux":
        return
    import resource

    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(allowed), hard))


def _describe(job: dict[str, Any], say: Say) -> None:
    """What a file of weights holds, for the form."""
    from diffviz.diffusion.checkpoints import load_denoiser

    denoiser = load_denoiser(job["path"])
    say(
        "denoiser",
        classes=list(denoiser.classes),
        T=denoiser.schedule.T,
        shape=list(denoiser.sample_shape),
    )


def _record(job: dict[str, Any], say: Say) -> None:
    import torch

    from diffviz.diffusion.names import parse_denoiser
    from diffviz.diffusion.rules import parse_arms
    from diffviz.diffusion.schedule import NoiseSchedule
    from diffviz.recording.record import record
    from diffviz.recording.run import Run

    torch.set_num_threads(job["threads"])
    order, folder = job["order"], Path(job["folder"])
    _limit_memory(job["memory"])
    schedule = None
    if order["plan"] is not None:
        schedule = NoiseSchedule.named(order["plan"], order["T"], order["start"], order["end"])
    denoiser = parse_denoiser(order["denoiser"]).make(schedule)
    used = denoiser.schedule if schedule is None else schedule
    arms = parse_arms(order["arms"])
    times = used.times(order["steps"])
    data = denoiser.law
    if data is not None and order["label"]:
        known = data.labels is not None
        data = data.only(denoiser.classes.index(order["label"])) if known else None
    say(
        "begin",
        rules=[[arm.name, arm.rule.name, float(arm.noise_scale)] for arm in arms],
        T=int(times[0]),
        steps=len(times) - 1,
        reference=_reference(data, used, times),
    )
    telling = _Telling(say, len(times) - 1)
    run: Run = record(
        denoiser,
        used,
        arms=arms,
        n=order["n"],
        seed=order["seed"],
        block=order["block"],
        steps=order["steps"],
        label=order["label"],
        progress=False,
        watch=telling,
    )
    telling.flush()
    say("writing")
    _write(run, folder, order["name"], job["limit"], say)


def _reference(data: Any, schedule: Any, times: Any) -> dict[str, Any] | None:
    """What q(x_t) says, at most at as many times as are told of."""
    import numpy as np

    if data is None:
        return None
    chosen = times[np.unique(np.rint(np.linspace(0, len(times) - 1, POINTS // 2)).astype(int))]
    bars = [float(schedule.alpha_bars[t]) for t in chosen]
    return {
        "t": chosen.tolist(),
        "mean": [_short(data.marginal_mean(bar)) for bar in bars],
        "std": [_short(data.marginal_std(bar)) for bar in bars],
        "std_between": [_short(data.marginal_std_between(bar)) for bar in bars],
    }


class _Telling:
    """Watches a recording and tells of some of its steps, not too often."""

    def __init__(self, say: Say, steps: int) -> None:
        self.say, self.steps = say, steps
        self.every = max(1, -(-steps // POINTS))
        self.waiting: list[list[Any]] = []
        self.done, self.block, self.last = 0, 0, 0.0

    def __call__(self, block: int, index: int, recorder: Any) -> None:
        if block != self.block:
            self.flush()
            self.block = block
        self.done += 1
        from diffviz.figures.live import STATISTICS

        if index % self.every == 0 or index == self.steps - 1:
            latest = recorder.latest()
            values = [[_short(v) for v in latest[name]] for name in STATISTICS]
            self.waiting.append([int(recorder.times[index]), values])
        if time.monotonic() - self.last >= PAUSE:
            self.flush()

    def flush(self) -> None:
        self.last = time.monotonic()
        self.say("points", block=self.block, done=self.done, points=self.waiting)
        self.waiting = []


def _short(value: Any) -> float | None:
    number = float(f"{float(value):.4g}")
    return number if number - number == 0 else None


def _write(run: Any, folder: Path, name: str, limit: float, say: Say) -> None:
    """The run and what opens it in the dashboard; then the other forms, one after the other."""
    from dashboards.payload import pack
    from diffviz.errors import InputError
    from diffviz.figures.export import export
    from diffviz.figures.strips import is_image
    from diffviz.files.atomic import replacing
    from diffviz.report.data import write_table
    from diffviz.report.page import write_report

    run.save(folder / FILES["run"])
    size = (folder / FILES["run"]).stat().st_size
    if size > limit:
        raise InputError(f"the run takes {size >> 20} MB; allowed are {int(limit) >> 20} MB")
    with replacing(folder / FILES["payload"]) as temporary:
        temporary.write_bytes(pack(run))
    say("run", bytes=size)
    write_table(run, folder / FILES["csv"])
    say("file", name="csv")
    if is_image(run):
        export("strips", run, folder / FILES["png"])
        say("file", name="png")
    write_report(run, folder / FILES["html"], title=name)
    say("file", name="html")


if __name__ == "__main__":
    main()
