"""Pictures of every page of the dashboard, in both themes and languages, for the documentation.

``python -m tests.screenshots [RUN]`` shows the run, or one that it records with the shipped
network, and leaves ``docs/images/dashboard/PAGE-THEME-LANGUAGE.webp``.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import diffviz as dv
from diffviz.diffusion.checkpoints import load_denoiser
from diffviz.diffusion.names import shipped_weights
from diffviz.files.atomic import replacing
from tests.browser import FLAGS, find_chromium
from tests.dashboard import served

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "dashboard"
VIEWS = {
    "compare": "/",
    "guess": "/guess",
    "play": "/play",
    "dial": "/dial?law=mixture&noise=0&score=1",
    "schedule": "/schedule?sprite=4",
    "xray": "/xray?loop=ddpm&faults=no-noise",
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


def picture(browser: Browser, address: str, place: str, look: str) -> bytes:
    """One page as WebP."""
    page = browser.new_page(viewport=SIZE)
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}{place}{'&' if '?' in place else '?'}{look}")
    page.wait_for_selector("h1")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(4000)
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
    with served({"run": run}) as guest, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        for name, place in VIEWS.items():
            for theme in ("light", "dark"):
                for language in ("en", "zh"):
                    look = f"theme={theme}&lang={language}"
                    taken = picture(browser, guest.address, place, look)
                    with replacing(FOLDER / f"{name}-{theme}-{language}.webp") as temporary:
                        temporary.write_bytes(taken)
                    print(f"   {name}, {theme}, {language}: {len(taken) // 1024} KiB", flush=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
