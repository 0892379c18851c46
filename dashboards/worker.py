"""The process that records, started by `dashboards.jobs`; it imports no Dash.

It ends when whoever started it is gone. Its memory is limited, so that too large a job fails here
and not elsewhere.
"""

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from diffviz.errors import InputError
from diffviz.recording.request import RecordRequest

POINTS, PAUSE = 160, 0.4
"""Steps at most that are drawn while it samples; seconds between two pictures."""


def work(told: Any, request: RecordRequest, language: str, memory: float, path: Path) -> None:
    """Record ``request`` into ``path`` in at most ``memory`` bytes, and say so into ``told``."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=lambda: (parent.join(), os._exit(3)), daemon=True).start()
    with suppress(OSError, AttributeError):
        os.nice(10)  # so that pages are answered first

    def say(state: str, **values: Any) -> None:
        told.send({"state": state, **values})

    try:
        import torch

        torch.set_num_threads(1)
        _limit_memory(memory)
        run = request.run(progress=False, watch=_Watch(request, language, say))
        say("writing")
        run.save(path)
        say("done")
    except Exception as error:
        # torch says it so when an allocation fails, also from within a denoiser
        words = f"{error} {error.__cause__}"
        if isinstance(error, MemoryError) or "allocate memory" in words or "bad_alloc" in words:
            say("memory")
        elif isinstance(error, InputError):
            # Where this server keeps its files is not for the browser.
            say("wrong", line=str(error).replace(str(path.parent) + os.sep, ""))
        else:
            traceback.print_exc()
            say("crash")
    os._exit(0)  # threads of libraries need not be waited for


def _limit_memory(allowed: float) -> None:
    """``allowed`` bytes in all, where the system can limit them; and the first to be killed."""
    if sys.platform != "linux":
        return
    import resource

    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(allowed), hard))


class _Watch:
    """Draws the curves, and the samples as they are, while a run is recorded."""

    def __init__(self, request: RecordRequest, language: str, say: Callable) -> None:
        self.request, self.language, self.say = request, language, say
        self.times: list[int] = []
        self.values: dict[str, list[list[float | None]]] = {}
        self.last, self.done, self.blocks = 0.0, 0, 1

    def __call__(self, block: int, index: int, recorder: Any) -> None:
        """After each step of each block."""
        self.done += 1
        steps = len(recorder.times) - 1
        if block == 0:
            self.blocks = -(-self.request.n // recorder.batch)
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
            figure, images = self._figure(int(recorder.times[0])), _images(recorder)
            total = steps * self.blocks
            self.say("sampling", done=self.done, total=total, figure=figure, images=images)

    def _figure(self, T: int) -> dict[str, Any]:
        from diffviz.figures.live import live_figure

        figure = live_figure(self.request.arms, T, self.language)
        for trace in figure.data:
            name, arm = trace.meta
            trace.x, trace.y = self.times, self.values[name][arm]
        return json.loads(figure.to_json())


def _images(recorder: Any) -> str | None:
    """The first samples of every arm as they are now, an arm a row, as a PNG in a data URI."""
    from diffviz.files.images import data_uri

    x = recorder.pictures()  # (A, samples, C, H, W)
    if x.size == 0:
        return None
    tiles = np.pad(np.moveaxis(x, 2, -1), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    sheet = np.concatenate([np.concatenate([*row], axis=1) for row in tiles], axis=0)
    return data_uri(sheet if sheet.shape[-1] == 3 else sheet[..., 0])
