"""Many browsers at once: scrubbing ones, recording ones, and what the server takes and gives back.

Scrubbing asks the server for nothing, so a scrubbing browser is one that opens pages and runs now
and then. ``DIFFVIZ_LOAD_SECONDS`` sets how long it goes on.
"""

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import diffviz as dv

pytest.importorskip("uvicorn")

SECONDS = float(os.environ.get("DIFFVIZ_LOAD_SECONDS", "60"))
JSON = {"Content-Type": "application/json"}


class Guest:
    """A browser: it keeps its connection and its cookie, and notes how long answers take."""

    def __init__(self, port):
        self.port, self.cookie, self.times, self.trouble = port, {}, [], []
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path, asked=None):
        body = None if asked is None else json.dumps(asked)
        method, start = "GET" if body is None else "POST", time.monotonic()
        for chance in (1, 2):
            try:
                self.connection.request(method, path, body, JSON | self.cookie)
                answer = self.connection.getresponse()
                raw = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                # A browser, too, asks again on a new connection when the old one was idle.
                self.connection.close()
                if chance == 2:
                    self.trouble.append(f"{path}: {error!r}")
                    return b""
        self.times.append(time.monotonic() - start)
        if answer.status >= 400:
            self.trouble.append(f"{path}: {answer.status} {raw[:100]!r}")
        given = answer.getheader("set-cookie")
        if given:
            self.cookie = {"Cookie": given.split(";")[0]}
        return raw

    def scrub(self, end, wait):
        """Open the page, then ask for something once a second."""
        time.sleep(wait)
        for path in ("/", "/assets/1-core.js", "/data/start", "/data/run/1"):
            self.ask(path)
        while time.monotonic() < end:
            for path in ("/data/dial/gaussian/0.5/0.7", "/data/run/1", "/health", "/data/runs"):
                self.ask(path)
                time.sleep(1)

    def record(self, end, seed):
        self.ask("/data/start")
        while time.monotonic() < end:
            asked = {"denoiser": "sprites", "n": 8, "length": 200, "seed": seed}
            job = json.loads(self.ask("/data/jobs", asked) or b"{}")
            stream = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            stream.request("GET", "/data/jobs/stream", headers=self.cookie)
            for line in stream.getresponse():
                if line.startswith(b"data:"):
                    found = json.loads(line[5:])["jobs"][0]
                    if found["state"] not in ("waiting", "running"):
                        break
                if time.monotonic() > end:
                    break
            stream.close()
            seed += 100
            if job and time.monotonic() > end:
                self.ask(f"/data/jobs/{job['id']}/cancel", {})


def memory(pid):
    """Megabytes in use."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(tmp_path):
    """(its process, its port) of a dashboard that shows one run; it must end well."""
    images, labels = dv.make_sprites(60)
    schedule = dv.NoiseSchedule.linear(200)
    denoiser = dv.DatasetDenoiser(schedule, images, labels, ("a", "b", "c", "d", "e"))
    dv.record(denoiser, schedule, n=8, progress=False, out=tmp_path / "run.nc")
    port = free_port()
    command = [sys.executable, "-m", "diffviz.cli", "dashboard", str(tmp_path / "run.nc")]
    process = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True)
    try:
        first = Guest(port)
        while not first.ask("/health"):
            time.sleep(0.2)
        for path in ("/", "/data/start", "/data/run/1"):
            first.ask(path)
        first.connection.close()
        yield process, port
    finally:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]
    assert "Traceback" not in said and "refused" not in said, said
    assert process.returncode == 0


def crowd(server, seconds, scrubbing, recording):
    """(times of answers, sorted; megabytes before, at most and 3 s after) of a crowd of guests."""
    process, port = server
    before, peak = memory(process.pid), 0.0
    end = time.monotonic() + seconds
    guests = [Guest(port) for _ in range(scrubbing + recording)]
    work = [
        threading.Thread(target=g.scrub, args=(end, 4 * i / scrubbing))
        if i < scrubbing
        else threading.Thread(target=g.record, args=(end, i))
        for i, g in enumerate(guests)
    ]
    for thread in work:
        thread.start()
    while any(thread.is_alive() for thread in work):
        peak = max(peak, memory(process.pid))
        time.sleep(0.2)
    time.sleep(3)
    after = memory(process.pid)
    times = sorted(t for guest in guests for t in guest.times)
    print(
        f"\n{scrubbing} scrub, {recording} record, {seconds:g} s: {len(times)} answers, "
        f"median {1e3 * statistics.median(times):.1f} ms, p95 {1e3 * p95(times):.1f} ms, "
        f"longest {1e3 * times[-1]:.0f} ms; memory {before:.0f} MB before, {peak:.0f} at most, "
        f"{after:.0f} after"
    )
    for guest in guests:
        guest.connection.close()
    assert [line for guest in guests for line in guest.trouble] == []
    return times, before, peak, after


def p95(times):
    return times[int(0.95 * len(times))]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("scrubbing", "recording", "limit"), [(30, 1, 0.05), (50, 3, 0.5), (100, 1, 0.1)]
)
def test_many_scrub_while_some_record(server, scrubbing, recording, limit):
    """No error, answers in time, memory bounded, no process left.

    Kills: sampling in the process that answers pages; runs, payloads or streams that stay.
    """
    times, before, peak, after = crowd(server, SECONDS, scrubbing, recording)
    assert p95(times) < limit
    assert peak < before + 150 and after < before + 60


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_where_it_is(server):
    """Ten minutes, after one to get warm. Kills: anything kept per request, stream or job."""
    crowd(server, SECONDS, 10, 1)
    _, before, _, after = crowd(server, 10 * SECONDS, 10, 1)
    assert after < before + 20
