"""A class at once: thirty browsers that open pages, and recordings beside them."""

import statistics
import threading
import time

import pytest

from diffviz.recording.request import RecordRequest
from tests.dashboard import Guest, served

PAGES = (("/", "?run=run"), ("/schedule", "?T=300"), ("/dial", ""), ("/record", ""))
MOVING = {
    "output": "moving.data",
    "outputs": {"id": "moving", "property": "data"},
    "inputs": [{"id": "which", "property": "data", "value": {"run": "run"}}],
    "changedPropIds": ["which.data"],
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thirty_browsers_and_three_recordings():
    """Kills: an answer that fails under load, or a recording that does not end.

    Moving through time asks the server for nothing, so a browser is one that opens pages. How long
    answers took is printed.
    """
    request = RecordRequest(denoiser="dataset:sprites", T=300, n=8)
    run = request.run(progress=False)
    times, trouble, ended = [], [], []
    with served({"run": run}, workers=3, memory=2e9) as first:
        first.page("/", "?run=run")  # figures are drawn once for all
        until = time.monotonic() + 20

        def browse(wait):
            guest = Guest(first.port)
            time.sleep(wait)
            while time.monotonic() < until:
                for path, search in PAGES:
                    start = time.monotonic()
                    answers = [guest.open(path, search)]
                    times.append(time.monotonic() - start)
                    if path == "/":
                        answers.append(guest.ask("/_dash-update-component", MOVING))
                    trouble.extend(body[:200] for status, _, body in answers if status != 200)
                    time.sleep(2)
            guest.connection.close()

        def record(number):
            form = {"denoiser": "sprites", "n": 4, "T": 50, "seed": number}
            jobs = first.jobs
            ended.extend(s["state"] for s in [*jobs.record(f"{number:024}", form, "en")][-1:])

        threads = [threading.Thread(target=browse, args=(i / 15,)) for i in range(30)]
        threads += [threading.Thread(target=record, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    p95 = statistics.quantiles(times, n=20)[-1]
    print(f"\n{len(times)} pages, median {statistics.median(times):.3f} s, p95 {p95:.3f} s")
    assert trouble == [] and ended == ["done"] * 3
