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
CLIENTS, RECORDING = 50, 3
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_fifty_scrub_while_three_record(tmp_path):
    """No error, 95 % of answers within half a second, memory bounded, no process left.

    Kills: sampling in the process that answers pages; runs, payloads or streams that stay.
    """
    images, labels = dv.make_sprites(60)
    schedule = dv.NoiseSchedule.linear(200)
    denoiser = dv.DatasetDenoiser(schedule, images, labels, ("a", "b", "c", "d", "e"))
    dv.record(denoiser, schedule, n=8, progress=False, out=tmp_path / "run.nc")
    port = free_port()
    command = [sys.executable, "-m", "diffviz", "dashboard", str(tmp_path / "run.nc")]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True)
    try:
        first = Guest(port)
        while not first.ask("/health"):
            time.sleep(0.2)
        first.trouble.clear()
        for path in ("/", "/data/start", "/data/run/1"):
            first.ask(path)
        before, peak = memory(server.pid), 0.0
        end = time.monotonic() + SECONDS
        guests = [Guest(port) for _ in range(CLIENTS + RECORDING)]
        work = [
            threading.Thread(target=g.scrub, args=(end, 4 * i / CLIENTS))
            if i < CLIENTS
            else threading.Thread(target=g.record, args=(end, i))
            for i, g in enumerate(guests)
        ]
        for thread in work:
            thread.start()
        while any(thread.is_alive() for thread in work):
            peak = max(peak, memory(server.pid))
            time.sleep(0.2)
        time.sleep(3)
        after = memory(server.pid)
        times = sorted(t for guest in guests for t in guest.times)
        p95 = times[int(0.95 * len(times))]
        print(
            f"\n{len(times)} answers, median {1e3 * statistics.median(times):.0f} ms, "
            f"p95 {1e3 * p95:.0f} ms, longest {1e3 * times[-1]:.0f} ms; "
            f"memory {before:.0f} MB before, {peak:.0f} at most, {after:.0f} after"
        )
        for guest in (first, *guests):
            guest.connection.close()
        assert [line for guest in (first, *guests) for line in guest.trouble] == []
        assert p95 < 0.5
        assert peak < before + 150 and after < before + 60
    finally:
        server.send_signal(signal.SIGINT)
        said = server.communicate(timeout=20)[1]
    assert "Traceback" not in said and "refused" not in said, said
    assert server.returncode == 0
