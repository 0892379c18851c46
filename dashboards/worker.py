"""The process that records: ``python -m dashboards.worker``, started by `dashboards.jobs`.

It reads one line of JSON, the order, and says how it goes in lines of JSON. When its standard
input ends, whoever started it is gone, and it ends too. Its memory is limited, so that too large a
job fails here and not elsewhere.
"""

import json
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

POINTS = 160
"""Steps at most that are drawn while it samples."""
PAUSE = 0.4
"""Seconds between two pictures."""


def main() -> None:
    """Do the one job, and say how it went."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer

    def say(state: str, **values: Any) -> None:
        answers.write(json.dumps({"state": state, **values}) + "\n")

    order = json.loads(sys.stdin.buffer.readline())
    Thread(target=_end_with_server, daemon=True).start()
    with suppress(OSError, AttributeError):
        os.nice(10)  # pages first
    from diffviz.errors import InputError

    try:
        _record(order, say)
        say("done")
    except Exception as error:
        # torch says it so when an allocation fails, also from within a denoiser
        short = isinstance(error, MemoryError) or any(
            words in f"{error} {error.__cause__}" for words in ("allocate memory", "bad_alloc")
        )
        if short:
            say("memory", line="")
        elif isinstance(error, InputError):
            # Where this server keeps its files is not for the browser.
            say("wrong", line=str(error).replace(str(Path(order["path"]).parent) + os.sep, ""))
        else:
            traceback.print_exc()
            say("crash", line="")
    answers.flush()
    os._exit(0)  # threads of libraries need not be waited for


def _end_with_server() -> None:
    sys.stdin.buffer.read()
    os._exit(3)


def _limit_memory(allowed: float) -> None:
    """``allowed`` bytes in all, where the system can limit them; and the first to be killed."""
    if sys.platform != "linux":
        return
    import resource

    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(allowed), hard))


def _record(order: dict[str, Any], say: Any) -> None:
    import torch

    from diffviz.recording.request import RecordRequest

    torch.set_num_threads(1)
    _limit_memory(order["memory"])
    request = RecordRequest(**order["request"])
    watch = _Watch(request, order["language"], say)
    run = request.run(progress=False, watch=watch)
    say("writing")
    run.save(order["path"])


class _Watch:
    """Draws the curves, and the samples as they are, while a run is recorded."""

    def __init__(self, request: Any, language: str, say: Any) -> None:
        self.request, self.language, self.say = request, language, say
        self.times: list[int] = []
        self.values: dict[str, list[list[float]]] = {}
        self.last = self.done = 0.0

    def __call__(self, block: int, index: int, recorder: Any) -> None:
        """After each step of each block."""
        self.done += 1
        steps = len(recorder.times) - 1
        blocks = -(-self.request.n // recorder.batch) if block == 0 else self.blocks
        self.blocks = blocks
        if index == 0:
            self.times, self.values = [], {}
        if index % max(1, steps // POINTS) == 0 or index == steps - 1:
            self.times.append(int(recorder.times[index]))
            for name, per_arm in recorder.latest().items():
                columns = self.values.setdefault(name, [[] for _ in per_arm])
                for column, value in zip(columns, per_arm.tolist(), strict=True):
                    column.append(float(f"{value:.4g}") if value == value else None)
        if time.monotonic() - self.last > PAUSE:
            self.last = time.monotonic()
            self.say(
                "sampling",
                done=self.done,
                total=steps * blocks,
                figure=self._figure(int(recorder.times[0])),
                images=_images(recorder),
            )

    def _figure(self, T: int) -> dict[str, Any]:
        from diffviz.figures.live import live_figure

        figure = live_figure(self.request.arms, T, None, self.language)
        for trace in figure.data:
            if trace.meta is not None:
                name, arm = trace.meta
                trace.x, trace.y = self.times, self.values[name][arm]
        return json.loads(figure.to_json())


def _images(recorder: Any) -> str | None:
    """The first samples of every arm as they are now, an arm a row, as a PNG in a data URI."""
    import numpy as np

    from diffviz.files.images import data_uri

    x = recorder.pictures()  # (A, samples, C, H, W)
    if x.size == 0:
        return None
    tiles = np.pad(np.moveaxis(x, 2, -1), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    sheet = np.concatenate([np.concatenate([*row], axis=1) for row in tiles], axis=0)
    return data_uri(sheet if sheet.shape[-1] == 3 else sheet[..., 0])


if __name__ == "__main__":
    main()
