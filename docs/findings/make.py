"""Write the pages on findings: run every fault of pages.toml, and put down what was seen.

    python docs/findings/make.py [ID…]

Every number and picture of a page comes from the code that the page shows. A fault that is not
found, or a right loop that is found wrong, ends the program.
"""

import difflib
import sys
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import diffviz as dv
from diffviz.diffusion.names import shipped_weights
from diffviz.errors import InputError
from diffviz.files.atomic import replacing
from diffviz.files.images import from_uint8
from diffviz.identify import zoo
from diffviz.sprites.make import CLASSES, make_sprites
from diffviz.testing import assert_sampler

HERE = Path(__file__).parent
CATALOGUE = HERE.parent.parent / "diffviz/files/locales/en/findings.toml"
TITLES = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))
IDS = [name for name in TITLES if name != "measure"]
PAGES = tomllib.loads((HERE / "pages.toml").read_text(encoding="utf-8"))
SHAPE = (8, 3, 16, 16)
XRAYED = (16, 3, 8, 8)
SPRITES = 400
SHOWN, SCALE, GAP = 8, 4, 2
MAX_BYTES = 30_000


@cache
def schedule():
    """As noisy at the end as the tutorial's, in fewer steps."""
    return dv.NoiseSchedule.course(200, 2.5e-4, 0.05)


@cache
def denoiser():
    """Exact for some sprites."""
    images, labels = make_sprites(SPRITES, 0)
    return dv.DatasetDenoiser(schedule(), from_uint8(images), labels=labels, classes=CLASSES)


@cache
def network():
    """The shipped one."""
    return dv.load_denoiser(shipped_weights())


def texts(page):
    """(right, wrong) code of a page."""
    if "fault" in page:
        return zoo.programs()[page["loop"]].source, zoo.mutate(page["loop"], page["fault"])
    right = wrong = page["code"] if "code" in page else zoo.programs()[page["loop"]].source
    for before, after in page["lines"]:
        if before not in wrong:
            raise ValueError(f"{before!r} is no part of the code")
        wrong = wrong.replace(before, after)
    return right, wrong


@cache
def seen(source):
    """What the x-ray sees of a loop."""
    torch.manual_seed(0)
    return dv.xray(zoo.sampler(source, schedule()), schedule(), shape=XRAYED)


@cache
def sampled(source, trained=False):
    """(samples, run or None, why there is none) of a loop on sprites."""
    model = network() if trained else denoiser()

    def answer(x, t):
        return model(x.float(), int(t)).to(x.dtype)

    shape = (SHOWN, *SHAPE[1:]) if trained else SHAPE
    probe = dv.Probe(answer, model.schedule, "index", "eps", denoiser().law)
    torch.manual_seed(1)
    with torch.no_grad():
        end = zoo.sampler(source, model.schedule)(probe, shape).float()
    try:
        return end, probe.finish(end), ""
    except InputError as error:
        return end, None, str(error)


def save(image, name):
    """Leave a picture beside the pages."""
    path = HERE / "images" / f"{name}.png"
    with replacing(path) as temporary:
        image.quantize(128, dither=Image.Dither.NONE).save(temporary, "PNG", optimize=True)
    if path.stat().st_size > MAX_BYTES:
        sys.exit(f"{path} has {path.stat().st_size} bytes; allowed are {MAX_BYTES}")


def sprites(name, rows):
    """Rows of sprites in the fixed range [−1, 1]."""
    size = SCALE * SHAPE[-1] + GAP
    sheet = Image.new("RGB", (SHOWN * size - GAP, len(rows) * (size + 2 * GAP) - 3 * GAP), "white")
    for r, row in enumerate(rows):
        for c, sample in enumerate(row[:SHOWN]):
            values = np.nan_to_num(sample, nan=1.0, posinf=1.0, neginf=-1.0).clip(-1, 1)
            pixels = np.rint((values + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
            image = Image.fromarray(pixels).resize((size - GAP,) * 2, Image.Resampling.NEAREST)
            sheet.paste(image, (c * size, r * (size + 2 * GAP)))
    save(sheet, name)


def histograms(name, runs, span):
    """Histograms of numbers, one above the other, from 0 to ``span``."""
    height, rows = 80, []
    for run in runs:
        counts, _ = np.histogram(run.dataset["samples"], bins=64, range=(0, span))
        tall = np.rint(counts / max(counts.max(), 1) * height).astype(int)
        row = np.full((height, len(tall), 3), 255, np.uint8)
        row[np.arange(height)[:, None] >= height - tall] = (70, 110, 180)
        rows += [row, np.full((6, len(tall), 3), 255, np.uint8)]
    image = Image.fromarray(np.concatenate(rows[:-1]))
    save(image.resize((512, 332), Image.Resampling.NEAREST), name)


def table(head, rows):
    """A Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def statistics(named):
    """What the runs of some loops say about their samples.

    The last number is the RMS distance per value to the nearest of the sprites.
    """
    rows = []
    for name, run in named:
        if run is None:
            rows.append([name, *["–"] * 3])
            continue
        data = run.dataset.isel(arm=0)
        std = data["std"].sel(quantity="x")[-1]
        numbers = (data["std_between"][-1], std, data["nearest_distance"])
        rows.append([name, *(f"{float(number):.3f}" for number in numbers)])
    law = denoiser().law
    known = law.moments(1.0)
    between, pooled = known["std_between"], known["std"]
    rows.append(["data", f"{between:.3f}", f"{pooled:.3f}", "0"])
    return table(["", "std between samples", "pooled std", "distance to a sprite"], rows)


def levels(xray):
    """What the state held at some calls, beside what the model was told, for a point."""
    law = xray.behaviour.isel(law=0)
    told = np.flatnonzero(np.isfinite(law["t_told"].values))
    rows = []
    for i in sorted({told[k] for k in (0, len(told) // 4, len(told) // 2, -3, -1)}):
        row = law.isel(call=i)
        names = ("signal", "signal_told", "level", "level_told")
        rows.append([f"{float(row['t_told']):g}", *(f"{float(row[n]):.3g}" for n in names)])
    return table(["t", "signal held", "told", "noise held", "told"], rows)


def coefficients(xray, finding):
    """What was seen of some steps beside what the rule says."""
    data = xray.coefficients
    t = data["t"].values
    wanted = [t[0], finding.t_range[0], finding.evidence.get("t"), t[len(t) // 2], *t[-3:]]
    wanted += [finding.t_range[1]]
    rows = []
    for i in sorted({int(np.abs(t - w).argmin()) for w in wanted if w is not None}):
        row = data.isel(t=i)
        pairs = [(row[name], row[f"expected_{name}"]) for name in ("x", "eps", "std")]
        cells = [f"{float(value):.5g}" for pair in pairs for value in pair]
        rows.append([f"{t[i]:g}", *(cell.replace("nan", "–") for cell in cells)])
    return table(["t", "x_t", "rule", "ε̂", "rule", "σ", "rule"], rows)


def changes(right, wrong):
    """The lines that differ, as a patch from the wrong to the right."""
    lines = difflib.ndiff(wrong.splitlines(), right.splitlines())
    return "```diff\n" + "\n".join(line for line in lines if line[0] in "+-") + "\n```"


def in_code(name, page):
    """The page of a fault that the x-ray sees."""
    right, wrong = texts(page)
    xray = seen(wrong)
    found = next((f for f in xray.findings if f.id == name), None)
    mended = [f.id for f in seen(right).findings if f.severity == "error"]
    if found is None or mended:
        sys.exit(f"{name}: the x-ray sees {[f.id for f in xray.findings]}, mended {mended}")
    others = [f"[{f.id}]({f.id}.md)" for f in xray.findings if f.id != name]
    trained = page.get("network", False)
    end, run, refused = sampled(wrong, trained)
    right_end, right_run, _ = sampled(right, trained)
    sprites(name, [right_end.numpy(), end.numpy()])
    about = dv.diagnose(run) if run is not None else []
    told = ", ".join(f"[{f.id}]({f.id}.md)" for f in about if f.severity != "information")
    model = "the shipped network" if trained else f"the exact denoiser of {SPRITES} sprites"
    behaved = {True: "It behaves", False: "It misbehaves", None: "It cannot be told"}[xray.behaves]
    return [
        "## The fault",
        f"```python\n{wrong}```",
        "## What it does",
        f"![mended above, the fault below](images/{name}.png)",
        f"Above the mended loop, below the fault, from the same x_T, with {model}.",
        statistics([("mended", right_run), ("fault", run)]),
        f"The probe refuses the run: {refused}." if refused else "",
        f"`dv.diagnose(run)` says: {told or 'nothing'}." if run is not None else "",
        "## What the x-ray sees",
        f"{behaved}, and the x-ray says, as {found.severity}:",
        f"> {found.message}",
        levels(xray),
        coefficients(xray, found) if np.isfinite(xray.coefficients["x"]).any() else "",
        f"Beside it: {', '.join(others)}." if others else "",
        "## Mended",
        changes(right, wrong),
    ]


def in_runs(name, page):
    """The page of a fault that a run shows."""
    right, wrong = texts(page)
    runs, findings = [], []
    for code in (right, wrong):
        names = {"dv": dv, "torch": torch, "schedule": schedule(), "T": schedule().T}
        torch.manual_seed(0)
        exec(code, names)
        runs.append(names.get("run"))
        findings.append(names["findings"] if "findings" in names else dv.diagnose(runs[-1]))
    found = next((f for f in findings[1] if f.id == name), None)
    mended = [f.id for f in findings[0]]
    if found is None or (name in mended and right != wrong):
        sys.exit(f"{name}: seen {[f.id for f in findings[1]]}, mended {mended}")
    if "run" not in names:
        said = ["## What is said", f"The x-ray says, as {found.severity}:", f"> {found.message}"]
        patch = ["## Mended", changes(right, wrong)] if right != wrong else []
        return ["## The code", f"```python\n{wrong.strip()}\n```", *said, *patch]
    span = page.get("span", 4)
    histograms(name, runs, span)
    rows = []
    for text, run in zip(("mended", "fault"), runs, strict=True):
        end = run.dataset.isel(arm=0, t=-1).sel(quantity="x")
        rows.append([text, f"{float(end['mean']):.3f}", f"{float(end['std']):.3f}"])
    source = "`probe.findings`" if "findings" in names else "`dv.diagnose(run)`"
    return [
        "## The fault",
        f"```python\n{wrong}```",
        "## What it does",
        f"![histograms of the samples](images/{name}.png)",
        f"Histograms of the samples, mended above, the fault below, from 0 to {span}.",
        table(["", "mean of the samples", "their std"], rows),
        "## What is said",
        f"{source} says, as {found.severity}:",
        f"> {found.message}",
        "## Mended",
        changes(right, wrong),
    ]


def in_tests(name, page):
    """The page of what only a test can ask: both loops are right."""
    right, wrong = texts(page)
    (end, run, _), (right_end, right_run, _) = sampled(wrong), sampled(right)
    sprites(name, [right_end.numpy(), end.numpy()])
    try:
        torch.manual_seed(0)
        assert_sampler(zoo.sampler(wrong, schedule()), schedule(), "ddpm/beta", shape=XRAYED)
    except AssertionError as error:
        return [
            "## The loop",
            f"```python\n{wrong}```",
            "## What it does",
            f"![√β above, the other below](images/{name}.png)",
            "Above √β_t, below √β̃_t, from the same x_T, with the exact denoiser of "
            f"{SPRITES} sprites.",
            statistics([("√β_t", right_run), ("√β̃_t", run)]),
            "## What is said",
            '`assert_sampler(sample, schedule, "ddpm/beta")` of `diffviz.testing` fails with',
            f"```text\n{error}\n```",
            "## Mended",
            changes(right, wrong),
        ]
    sys.exit(f"{name}: not found")


def write(name):
    """The whole page of one finding."""
    if name not in PAGES:
        sys.exit(f"{name} has no table in pages.toml")
    page = PAGES[name]
    make = in_tests if "tested" in page else in_runs if "code" in page else in_code
    title = f"# {TITLES[name]['title']}\n\n`{name}`"
    parts = [title, page["why"], *make(name, page)]
    return "\n\n".join(part for part in parts if part) + "\n"


def index():
    """The list of all of them."""
    groups = (
        ("Seen in the code, by the x-ray", [n for n in IDS if "code" not in PAGES[n]]),
        ("Seen in a run, by `diagnose` or a probe", [n for n in IDS if "code" in PAGES[n]]),
    )
    parts = [
        "# Findings",
        "What `dv.xray`, `dv.diagnose`, `dv.Probe` and the commands `diffviz xray` and "
        "`diffviz diagnose` can say: the fault in a few lines, what it does to sprites, what is "
        "seen of it in numbers, and what mends it.",
        f"The loops on these pages have T = {schedule().T} steps; `beta`, `alpha` and `alpha_bar` "
        "are β, α and ᾱ as tensors with index t. Every number and picture is written by "
        "`python docs/findings/make.py`, which runs each loop as it is printed.",
    ]
    for head, names in groups:
        links = [f"| [{n}]({n}.md) | {TITLES[n]['title']} |" for n in names]
        parts += [f"## {head}", "| id | |\n|---|---|\n" + "\n".join(links)]
    parts.append("```{toctree}\n:hidden:\n\n" + "\n".join(IDS) + "\n```")
    return "\n\n".join(parts) + "\n"


def main(names):
    """Write the pages of some ids, or all, and the index."""
    (HERE / "images").mkdir(exist_ok=True)
    for name in names or IDS:
        text = write(name)
        with replacing(HERE / f"{name}.md") as path:
            path.write_text(text, encoding="utf-8")
        print(name, flush=True)
    with replacing(HERE / "index.md") as path:
        path.write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
