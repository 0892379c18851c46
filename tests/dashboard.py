"""A dashboard that runs in this process, and a guest that asks it as a browser would."""

import http.client
import json
import socket
import threading
from contextlib import contextmanager

from dashboards.app import create_app, made_server
from dashboards.jobs import Jobs

PAGES = {
    "compare": "/",
    "guess": "/guess",
    "play": "/play",
    "dial": "/dial",
    "schedule": "/schedule",
    "xray": "/xray",
    "record": "/record",
    "lesson": "/lesson",
}
"""Every page; all but the last in the order of the navigation."""
JSON = {"Content-Type": "application/json"}


@contextmanager
def served(runs, *, token=None, workers=1, memory=None):
    """A guest of a dashboard that shows ``runs``."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(200)
    port = listening.getsockname()[1]
    with Jobs(workers=workers, memory=memory) as jobs:
        app = create_app(runs, port=port, token=token, jobs=jobs)
        server = made_server(app, "127.0.0.1", port, listening)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        guest = Guest(port, jobs)
        yield guest
        guest.connection.close()
        server.shutdown()
        thread.join(10)
        server.server_close()
        listening.close()


class Guest:
    """Asks one server; keeps its connection and its cookie."""

    def __init__(self, port, jobs=None):
        self.port, self.jobs, self.cookie = port, jobs, {}
        self.address = f"http://127.0.0.1:{port}"
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path, body=None, method=None, **headers):
        """(status, headers, body) of a GET, or of a POST of ``body``, which may be bytes."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        method = method or ("GET" if body is None else "POST")
        sent = (JSON if body is not None else {}) | self.cookie
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self.connection.request(method, path, raw, sent)
            answer = self.connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):  # it was idle, or refused
            self.connection.close()
            self.connection.request(method, path, raw, sent)
            answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def open(self, path, search=""):
        """What the server answers when a browser opens a page: (status, headers, body)."""
        outputs = [("_pages_content", "children"), ("_pages_store", "data")]
        body = {
            "output": "..".join(["", "...".join(f"{i}.{p}" for i, p in outputs), ""]),
            "outputs": [{"id": i, "property": p} for i, p in outputs],
            "inputs": [
                {"id": "_pages_location", "property": "pathname", "value": path},
                {"id": "_pages_location", "property": "search", "value": search},
            ],
            "changedPropIds": ["_pages_location.pathname"],
        }
        return self.ask("/_dash-update-component", body)

    def call(self, output, **values):
        """What the callback of ``output`` answers, by output, given its inputs and states.

        A value stands under the name of its control; what is not given is None.
        """
        _, _, listed = self.ask("/_dash-dependencies")
        one = next(c for c in json.loads(listed) if output in c["output"].strip(".").split("..."))
        outputs = [_part(part) for part in one["output"].strip(".").split("...")]
        body = {"output": one["output"], "outputs": outputs if len(outputs) > 1 else outputs[0]}
        for kind in ("inputs", "state"):
            parts = [_part(f"{part['id']}.{part['property']}") for part in one[kind]]
            body[kind] = [part | {"value": values.get(_name(part["id"]))} for part in parts]
        changed = [part for part in body["inputs"] if part["value"] is not None] or body["inputs"]
        ids = [part["id"] for part in changed]
        words = [json.dumps(i, separators=(",", ":")) if isinstance(i, dict) else i for i in ids]
        body["changedPropIds"] = [
            f"{word}.{part['property']}" for word, part in zip(words, changed, strict=True)
        ]
        status, _, answer = self.ask("/_dash-update-component", body)
        assert status in (200, 204), answer[:300]
        found = json.loads(answer)["response"] if answer else {}
        return {f"{_name(i)}.{name}": v for i, props in found.items() for name, v in props.items()}

    def page(self, path, search=""):
        """The same as text, without escapes."""
        status, _, answer = self.open(path, search)
        assert status == 200, answer[:300]
        return json.dumps(json.loads(answer), ensure_ascii=False, separators=(",", ":"))


def _part(text):
    """{"id", "property"} of ``id.property``; an id that is an object is one."""
    name, _, prop = text.rpartition(".")
    return {"id": json.loads(name) if name.startswith("{") else name, "property": prop}


def _name(of):
    """The name of a control, which is its id, or stands in it."""
    of = json.loads(of) if isinstance(of, str) and of.startswith("{") else of
    return of["name"] if isinstance(of, dict) else of
