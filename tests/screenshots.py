"""Pictures of every page of the dashboard, in both themes and languages, for the documentation.

``python -m tests.screenshots [RUN]`` shows the run, or one that it records with the shipped
network, and leaves ``docs/images/dashboard/PAGE-THEME-LANGUAGE.webp``.
"""

import io
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import dashboards
import diffviz as dv
from diffviz.diffusion.checkpoints import load_denoiser
from diffviz.diffusion.names import shipped_weights
from diffviz.files.atomic import replacing
from tests.browser import FLAGS, find_chromium

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "dashboard"
VIEWS = {
    "compare": "/?t=100&sample=2",
    "dial": "/dial?law=mixture&noise=0&score=1",
    "schedule": "/schedule?sprite=4",
    "xray": "/xray?loop=no-noise",
    "record": "/record",
}
SIZE = {"width": 1280, "height": 860}
WIDTH = 960
"""Of the pictures, in pixels."""
PATIENCE = 180_000
"""Milliseconds that a page may take."""


def shown(path: str | None) -> dv.Run:
    """The run at ``path``, or a new one."""
    if path is not None:
        return dv.Run.load(path)
    network = load_denoiser(shipped_weights())
    return dv.record(network, network.schedule, n=16)


@contextmanager
def served(run: dv.Run) -> Iterator[str]:
    """The address of a dashboard that shows the run."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    app = dashboards.create_app({"run": run})
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def picture(browser: Browser, address: str, place: str, look: str) -> bytes:
    """One page as WebP."""
    page = browser.new_page(viewport=SIZE)
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}{place}{'&' if '?' in place else '?'}{look}")
    page.wait_for_selector("html[data-ready]", state="attached")
    if "xray" in place:
        page.locator("#network-pictures canvas").nth(3).wait_for(state="attached")
    page.wait_for_timeout(1500)
    taken = Image.open(io.BytesIO(page.screenshot(full_page="xray" in place or "dial" in place)))
    page.close()
    small = taken.convert("RGB").resize(
        (WIDTH, round(taken.height * WIDTH / taken.width)), Image.Resampling.LANCZOS
    )
    kept = io.BytesIO()
    small.save(kept, "WEBP", quality=72, method=6)
    return kept.getvalue()


def main(words: list[str]) -> None:
    """All of them."""
    run = shown(words[0] if words else None)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with served(run) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        for name, place in VIEWS.items():
            for theme in ("light", "dark"):
                for language in ("en", "zh"):
                    look = f"theme={theme}&lang={language}"
                    taken = picture(browser, address, place, look)
                    with replacing(FOLDER / f"{name}-{theme}-{language}.webp") as temporary:
                        temporary.write_bytes(taken)
                    print(f"   {name}, {theme}, {language}: {len(taken) // 1024} KiB", flush=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
