"""Requests that nobody should send: each gets one line, the log one line, and nothing happens."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("uvicorn")

from dashboards import create_app, guard
from dashboards.order import FIELDS
from tests.test_dashboard import JSON, Server
from tests.test_jobs import LONG, alive, cookie_of, post, until
from tests.test_load import free_port

TOKEN = "a-secret-of-the-lecture-room"


@pytest.fixture(scope="module")
def server():
    running = Server(create_app({}))
    yield running
    running.stop()


words = st.sampled_from(
    [
        *("schedule-asked", "schedule-answer", "data", "schedule-answer.data", "..a.b..", ""),
        *("../../etc/passwd", "<img src=x onerror=alert(1)>", "a" * 3000, "\x00", "__class__"),
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(allow_nan=False) | words,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "property", "value"]) | words, inner, max_size=3)
    ),
    max_leaves=8,
)
callback = st.dictionaries(
    st.sampled_from(["output", "outputs", "inputs", "state", "changedPropIds", "background"]),
    anything,
)
orders = st.dictionaries(st.sampled_from(FIELDS) | words, anything)


def check_bodies(server):
    @given(
        st.tuples(st.just("/_dash-update-component"), callback) | st.tuples(st.just(""), orders)
    )
    def check(asked):
        path, body = asked
        for place in [path] if path else ["/data/jobs/estimate", "/data/jobs/x/cancel"]:
            status, _, text = server.ask(place, "POST", json.dumps(body), **JSON)
            assert status < 500, (body, text)
            assert "Traceback" not in text and (status == 200 or len(text) < 400)

    return check


def test_no_body_is_answered_with_500(server):
    """Kills: a callback or an order that takes the shape of what it is sent for granted."""
    settings(max_examples=40)(check_bodies(server))()
    assert server.ask("/health")[0] == 200


@pytest.mark.slow
def test_a_thousand_bodies(server):
    """The same, a thousand times."""
    settings(max_examples=1000)(check_bodies(server))()


def test_a_body_that_does_not_come_is_not_waited_for(server, monkeypatch):
    """Kills: connections held open by a request that is never finished."""
    monkeypatch.setattr(guard, "LONGEST_WAIT", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        head = f"POST /data/jobs HTTP/1.1\r\nHost: localhost:{server.port}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        connection.sendall(head.encode())
        assert b" 408 " in connection.recv(1000)


def test_logs_hold_no_secret_and_one_line_each(caplog):
    """Kills: a token, a cookie or a line break of a stranger in the log."""
    running = Server(create_app({}, token=TOKEN))
    caplog.set_level(logging.DEBUG, "diffviz.dashboard")
    try:
        joined = running.ask(f"/?token={TOKEN}")[1]["set-cookie"].split(";")[0]
        guest = running.ask("/data/start", Cookie=joined)[1]["set-cookie"].split(";")[0]
        both = f"{joined}; {guest}"
        assert running.ask(f"/x%0aforged?token=not-{TOKEN}")[0] == 401
        assert running.ask("/data/jobs", "POST", "{", Cookie=both, **JSON)[0] == 400
        wrong = {"denoiser": "a\nWARNING forged", "data": "\u2028"}
        assert post(running, "/data/jobs", wrong, Cookie=both)[0] == 422
    finally:
        running.stop()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    for line in lines:
        assert len(line.splitlines()) == 1 and len(line) < 300
        assert TOKEN not in line and guest.split("=")[1] not in line


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stop_ends_workers_and_removes_their_runs(name):
    """The command itself, asked to end in the middle of a recording.

    Kills: orphans, folders left behind, a stream that holds the server back.
    """
    port = free_port()
    command = [sys.executable, "-m", "diffviz.cli", "dashboard", "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert "is at" in process.stdout.readline()
        running = Server.__new__(Server)
        running.port = port
        until(lambda: listens(port))
        mine = cookie_of(running)
        post(running, "/data/jobs", LONG | {"n": 1000}, Cookie=mine)
        stream = running.open("/data/jobs/stream", Cookie=mine)
        stream.getresponse().readline()
        until(lambda: workers_of(process.pid))
        workers = workers_of(process.pid)
        time.sleep(1)
        process.send_signal(getattr(signal, name))
        process.wait(15)
        stream.close()
    finally:
        process.kill()
        said = process.communicate()[0]
    assert "Traceback" not in said
    until(lambda: not any(alive(pid) for pid in workers), 5)
    left = Path(os.environ.get("TMPDIR", "/tmp")).glob(f"diffviz-runs-{process.pid}-*")
    assert workers and list(left) == []


def workers_of(pid):
    found = []
    for entry in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = re.search(r"PPid:\s+(\d+)", entry.read_text())
        except OSError:
            continue
        if parent and int(parent[1]) == pid:
            found.append(int(entry.parent.name))
    return found


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
