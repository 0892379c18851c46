"""Pictures for the documentation: two of a run, and every page of the dashboard.

``python -m tests.screenshots [RUN]`` shows the run, or the one that is shipped, and leaves
``docs/images/strips.png``, ``map-LANGUAGE.webp`` and ``dashboard/PAGE-THEME-LANGUAGE.webp``, in
both themes and languages. With ``--first`` it draws the two pictures of the run alone.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import diffviz as dv
from diffviz.diffusion.names import shipped
from diffviz.figures import export
from diffviz.figures.strips import strips_data, strips_figure
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


def first(run: dv.Run) -> None:
    """What each arm makes, and where its samples go: the pictures that a reader sees first."""
    ends = strips_figure(strips_data(run, range(10), [0]))
    ends.update_layout(title=None, margin={"t": 4, "b": 4}, width=900, height=256)
    ends.update_xaxes(title=None, showticklabels=False)
    maps = {language: dv.plot(run, "map", language=language) for language in ("en", "zh")}
    for figure in maps.values():
        figure.update_layout(title=None, width=900, height=420)
    drawn = export.render([ends, *maps.values()], "png", scale=2)
    with replacing(FOLDER.parent / "strips.png") as temporary:
        temporary.write_bytes(drawn[0])
    for language, taken in zip(maps, drawn[1:], strict=True):
        with replacing(FOLDER.parent / f"map-{language}.webp") as temporary:
            Image.open(io.BytesIO(taken)).save(temporary, "WEBP", quality=80)


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
    given = [word for word in words if word != "--first"]
    run = dv.Run.load(given[0] if given else shipped("sprites.nc"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    first(run)
    if "--first" in words:
        return
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
