"""Write the pages on findings: run every fault of `faults`, and put down what was seen.

    python docs/findings/make.py [ID…]

Every number and picture of a page comes from the code that the page shows. A fault that is not
found, or a mended loop that is found wrong, ends the program.
"""

import difflib
import sys
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from faults import SEEN_IN_CODE, SEEN_IN_RUNS, VARIANCE
from PIL import Image

import diffviz as dv
from diffviz.diffusion.names import shipped_weights
from diffviz.errors import InputError
from diffviz.files.atomic import replacing
from diffviz.files.images import from_uint8
from diffviz.sprites.make import CLASSES, make_sprites
from diffviz.testing import assert_sampler

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TITLES = tomllib.loads(
    (ROOT / "diffviz/files/locales/en/findings.toml").read_text(encoding="utf-8")
)
IDS = [name for name in TITLES if name != "measure"]
SHAPE = (16, 3, 16, 16)
SPRITES = 800
SHOWN, SCALE, GAP = 8, 4, 2


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


def sampler_of(code, tables="", own=None):
    """The function ``sample`` that the code of a page defines, on the schedule of the pages."""
    own = own or schedule()
    used = eval(tables, {"dv": dv, "T": own.T}) if tables else own
    b, a, ab = (torch.tensor(x) for x in (used.betas, used.alphas, used.alpha_bars))
    names = {"torch": torch, "pairwise": pairwise, "T": used.T, "b": b, "a": a, "ab": ab}
    names["half_log_snr"] = lambda t: (ab[t] / (1 - ab[t])).log() / 2
    exec(code, names)
    # The tables are float64; the states stay in the type that the loop gives them.
    return lambda model, shape: names["sample"](model, shape)


@cache
def seen(code, tables=""):
    """What the x-ray sees of a loop."""
    torch.manual_seed(0)
    return dv.xray(sampler_of(code, tables), schedule(), shape=SHAPE)


@cache
def sampled(code, tables="", trained=False):
    """(samples, run or None, why there is none) of a loop on sprites."""
    model = network() if trained else denoiser()
    own = model.schedule

    def answer(x, t):
        return model(x.float(), int(t)).to(x.dtype)

    answer.law = denoiser().law
    shape = (SHOWN, *SHAPE[1:]) if trained else SHAPE
    probe = dv.Probe(answer, own, time="index", answer="eps")
    torch.manual_seed(1)
    with torch.no_grad():
        end = sampler_of(code, tables, own)(probe, shape).float()
    try:
        return end, probe.finish(end), ""
    except InputError as error:
        return end, None, str(error)


def picture(path, rows):
    """Rows of sprites in the fixed range [−1, 1]."""
    size = SCALE * SHAPE[-1] + GAP
    sheet = Image.new("RGB", (SHOWN * size - GAP, len(rows) * (size + 2 * GAP) - 3 * GAP), "white")
    for r, row in enumerate(rows):
        for c, sample in enumerate(row[:SHOWN]):
            values = np.nan_to_num(sample, nan=1.0, posinf=1.0, neginf=-1.0).clip(-1, 1)
            pixels = np.rint((values + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
            image = Image.fromarray(pixels).resize((size - GAP,) * 2, Image.Resampling.NEAREST)
            sheet.paste(image, (c * size, r * (size + 2 * GAP)))
    with replacing(path) as temporary:
        sheet.quantize(128, dither=Image.Dither.NONE).save(temporary, "PNG", optimize=True)
    if path.stat().st_size > 30_000:
        sys.exit(f"{path} has {path.stat().st_size} bytes; allowed are 30,000")


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
        numbers = (
            data["std_between"][-1],
            data["std"].sel(quantity="x")[-1],
            data["nearest_distance"],
        )
        rows.append([name, *(f"{float(number):.3f}" for number in numbers)])
    known = denoiser().law
    rows.append(
        [
            "data",
            f"{known.marginal_std_between(1.0):.3f}",
            f"{known.marginal_std(1.0):.3f}",
            "0",
        ]
    )
    head = ["", "std between samples", "pooled std", "distance to a sprite"]
    return table(head, rows)


def coefficients(xray, finding):
    """What was seen of some steps beside what the rule says."""
    data = xray.coefficients
    t = data["t"].values
    wanted = [t[0], finding.t_range[0], finding.evidence.get("t"), t[len(t) // 2], *t[-3:]]
    wanted += [finding.t_range[1]]
    places = sorted({int(np.abs(t - w).argmin()) for w in wanted if w is not None})
    rows = []
    for i in places:
        row = data.isel(t=i)
        pairs = [(row[name], row[f"expected_{name}"]) for name in ("x", "eps", "std")]
        cells = [f"{float(value):.5g}" for pair in pairs for value in pair]
        rows.append([f"{t[i]:g}", *(cell.replace("nan", "–") for cell in cells)])
    head = ["t", "x_t", "rule", "ε̂", "rule", "σ", "rule"]
    return table(head, rows)


def changes(right, wrong):
    """The lines that differ, as a patch from the wrong to the right."""
    lines = difflib.ndiff(wrong.splitlines(), right.splitlines())
    return "\n".join(line for line in lines if line[0] in "+-")


def in_code(name, fault):
    """The page of a fault that the x-ray sees."""
    xray = seen(fault.wrong, fault.tables)
    found = next((f for f in xray.findings if f.id == name), None)
    mended = [f.id for f in seen(fault.base).findings if f.severity == "error"]
    if found is None or mended:
        sys.exit(f"{name}: the x-ray sees {[f.id for f in xray.findings]}, mended {mended}")
    others = [f"[{f.id}]({f.id}.md)" for f in xray.findings if f.id != name]
    end, run, refused = sampled(fault.wrong, fault.tables, fault.network)
    right_end, right_run, _ = sampled(fault.base, "", fault.network)
    picture(HERE / "images" / f"{name}.png", [right_end.numpy(), end.numpy()])
    about = dv.diagnose(run) if run is not None else []
    told = ", ".join(f"[{f.id}]({f.id}.md)" for f in about if f.severity != "information")
    parts = [
        fault.why,
        "## The fault",
        f"```python\n{fault.wrong}```",
        f"Its tables are those of `{fault.tables}`." if fault.tables else "",
        "## What it does",
        f"![mended above, the fault below](images/{name}.png)",
        "Above the mended loop, below the fault, from the same x_T, with "
        + (
            "the shipped network."
            if fault.network
            else f"the exact denoiser of {SPRITES} sprites."
        ),
        statistics([("mended", right_run), ("fault", run)]),
        f"The probe refuses the run: {refused}." if refused else "",
        f"`dv.diagnose(run)` says: {told or 'nothing'}." if run is not None else "",
        "## Its fingerprint",
        f"The x-ray takes it for **{xray.rule or 'no known rule'}** and says, "
        f"as {found.severity}:",
        f"> {found.message}",
        coefficients(xray, found) if np.isfinite(xray.coefficients["x"]).any() else "",
        f"Beside it: {', '.join(others)}." if others else "",
        "## Mended",
        f"```diff\n{changes(fault.base, fault.wrong)}\n```"
        if fault.lines
        else f"```diff\n-{fault.tables}\n+{schedule()!r}\n```",
    ]
    return parts


def in_runs(name, recorded):
    """The page of a fault that a run shows."""
    runs = []
    for code in (recorded.right, recorded.wrong):
        names = {"dv": dv, "torch": torch, "schedule": schedule()}
        torch.manual_seed(0)
        exec(code, names)
        runs.append(names["run"])
    found = next((f for f in dv.diagnose(runs[1]) if f.id == name), None)
    mended = [f.id for f in dv.diagnose(runs[0])]
    if found is None or name in mended:
        sys.exit(f"{name}: seen {[f.id for f in dv.diagnose(runs[1])]}, mended {mended}")
    parts = [recorded.why, "## The fault", f"```python\n{recorded.wrong}```", "## What it does"]
    histograms(name, runs, recorded.span)
    rows = []
    for text, run in zip(("mended", "fault"), runs, strict=True):
        end = run.dataset.isel(arm=0, t=-1).sel(quantity="x")
        rows.append([text, f"{float(end['mean']):.3f}", f"{float(end['std']):.3f}"])
    parts += [
        f"![histograms of the samples](images/{name}.png)",
        f"Histograms of the samples, mended above, the fault below, from 0 to {recorded.span}.",
        table(["", "mean of the samples", "their std"], rows),
    ]
    return [
        *parts,
        "## Its fingerprint",
        f"`dv.diagnose(run)` says, as {found.severity}:",
        f"> {found.message}",
        "## Mended",
        f"```diff\n{changes(recorded.right, recorded.wrong)}\n```",
    ]


def histograms(name, runs, span):
    """Histograms of numbers, one above the other, from 0 to ``span``."""
    height, rows = 80, []
    for run in runs:
        counts, _ = np.histogram(run.dataset["samples"], bins=64, range=(0, span))
        tall = np.rint(counts / counts.max() * height).astype(int)
        row = np.full((height, len(tall), 3), 255, np.uint8)
        row[np.arange(height)[:, None] >= height - tall] = (70, 110, 180)
        rows += [row, np.full((6, len(tall), 3), 255, np.uint8)]
    image = Image.fromarray(np.concatenate(rows[:-1])).resize((512, 332), Image.Resampling.NEAREST)
    with replacing(HERE / "images" / f"{name}.png") as temporary:
        image.quantize(16).save(temporary, "PNG", optimize=True)


def in_tests(name):
    """The page of what only a test can ask."""
    parts = in_code_without_finding(name, VARIANCE)
    try:
        torch.manual_seed(0)
        assert_sampler(sampler_of(VARIANCE.wrong), schedule(), "ddpm/beta", shape=SHAPE)
    except AssertionError as error:
        return [
            *parts,
            "## Its fingerprint",
            '`assert_sampler(sample, schedule, "ddpm/beta")` of `diffviz.testing` fails with',
            f"```text\n{error}\n```",
            "## Mended",
            f"```diff\n{changes(VARIANCE.base, VARIANCE.wrong)}\n```",
        ]
    sys.exit(f"{name}: not found")


def in_code_without_finding(name, fault):
    """The first half of a page."""
    end, run, _ = sampled(fault.wrong)
    right_end, right_run, _ = sampled(fault.base)
    picture(HERE / "images" / f"{name}.png", [right_end.numpy(), end.numpy()])
    return [
        fault.why,
        "## The loop",
        f"```python\n{fault.wrong}```",
        "## What it does",
        f"![√β above, the other below](images/{name}.png)",
        "Above √β_t, below √β̃_t, from the same x_T, with the exact denoiser of "
        f"{SPRITES} sprites.",
        statistics([("√β_t", right_run), ("√β̃_t", run)]),
    ]


def page(name):
    """The whole page of one finding."""
    if name in SEEN_IN_CODE:
        parts = in_code(name, SEEN_IN_CODE[name])
    elif name in SEEN_IN_RUNS:
        parts = in_runs(name, SEEN_IN_RUNS[name])
    elif name == "variance-posterior-vs-beta":
        parts = in_tests(name)
    else:
        sys.exit(f"{name} has no fault in faults.py")
    title = f"# {TITLES[name]['title']}\n\n`{name}`"
    return "\n\n".join([title, *(part for part in parts if part)]) + "\n"


def index():
    """The list of all of them."""
    groups = (
        ("Seen in the code, by the x-ray", [n for n in IDS if n not in SEEN_IN_RUNS]),
        ("Seen in a run, by `diagnose`", [n for n in IDS if n in SEEN_IN_RUNS]),
    )
    parts = [
        "# Findings",
        "What `dv.xray`, `dv.diagnose` and the commands `diffviz xray` and `diffviz diagnose` can "
        "say: the fault in a few lines, what it does to sprites, its fingerprint in numbers, and "
        "what mends it.",
        f"The loops on these pages have T = {schedule().T} steps; `b`, `a` and `ab` are β, α and "
        "ᾱ as tensors with index t. Every number and picture is written by "
        "`python docs/findings/make.py`, which runs each loop as it is printed.",
    ]
    for head, names in groups:
        links = [f"| [{n}]({n}.md) | {TITLES[n]['title']} |" for n in names]
        parts += [f"## {head}", "| id | |\n|---|---|\n" + "\n".join(links)]
    toc = "\n".join(IDS)
    parts.append("```{toctree}\n:hidden:\n\n" + toc + "\n```")
    return "\n\n".join(parts) + "\n"


def main(names):
    """Write the pages of some ids, or all, and the index."""
    (HERE / "images").mkdir(exist_ok=True)
    for name in names or IDS:
        text = page(name)
        with replacing(HERE / f"{name}.md") as path:
            path.write_text(text, encoding="utf-8")
        print(name, flush=True)
    with replacing(HERE / "index.md") as path:
        path.write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
