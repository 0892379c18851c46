"""Nothing runs that a file holds, nothing acts that a name says, and each promise has its test."""

import ast
import code
import functools
import importlib
import io
import json
import operator
import os
import pickle
import re
import runpy
import subprocess
import sys
import timeit
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from diffviz.cli import main
from diffviz.diagnosis.findings import diagnose
from diffviz.diffusion.checkpoints import load_denoiser
from diffviz.diffusion.exact import DatasetDenoiser
from diffviz.diffusion.rules import Arm, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.figures import plot
from diffviz.files.images import load_images, load_labels
from diffviz.recording.record import record
from diffviz.recording.run import Run
from diffviz.report import write_numbers, write_report
from diffviz.training import train

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [*ROOT.glob("diffviz/**/*.py"), *ROOT.glob("dashboards/**/*.py")]

# -------------------------------------------------------------------- the source

NAMES = {"eval", "exec", "compile", "__import__", "pickle", "cPickle", "dill", "joblib", "shelve"}
KEYWORDS = {"weights_only": False, "allow_pickle": True, "shell": True}


def offences(tree: ast.AST) -> list[str]:
    """Calls and imports that would run what a file or a browser sends."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in NAMES:
                found.append(f"{node.func.id}() in line {node.lineno}")
            if isinstance(node.func, ast.Attribute):
                owner = getattr(node.func.value, "id", "")
                if f"{owner}.{node.func.attr}" in ("os.system", "os.popen"):
                    found.append(f"{owner}.{node.func.attr} in line {node.lineno}")
                loads = f"{owner}.{node.func.attr}" == "torch.load"
                given = {keyword.arg for keyword in node.keywords}
                if loads and "weights_only" not in given:
                    found.append(f"torch.load without weights_only in line {node.lineno}")
            for keyword in node.keywords:
                allowed = isinstance(keyword.value, ast.Constant)
                wrong = allowed and keyword.value.value is KEYWORDS.get(keyword.arg or "", ...)
                if keyword.arg in KEYWORDS and (wrong or not allowed):
                    found.append(f"{keyword.arg} in line {node.lineno}")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"import {m}" for m in modules if m.split(".")[0] in NAMES]
    return found


def test_the_source_has_nothing_that_runs_what_it_reads():
    """No weights_only=False, allow_pickle=True, pickle, eval, exec, shell=True.

    The zoo runs loops, whose texts stand in that very file.
    """
    assert len(SOURCES) > 40
    read = [path for path in SOURCES if path.name != "zoo.py"]
    found = {str(p.relative_to(ROOT)): offences(ast.parse(p.read_text("utf-8"))) for p in read}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "line",
    [
        "eval(x)",
        "exec(x)",
        "import pickle",
        "from pickle import loads",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x, allow_pickle=True)",
        "np.load(x, allow_pickle=trust)",
        "subprocess.run(x, shell=True)",
        "os.system(x)",
    ],
)
def test_that_test_can_fail(line):
    assert offences(ast.parse(line))


# -------------------------------------------------------------------- programs in files


class Payload:
    """Unpickling it calls ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


TOUCH = "open('sentinel', 'w').close()"
CALLS = [
    Payload(os.system, "touch sentinel"),
    Payload(os.mkdir, "sentinel"),
    Payload(os.popen, "touch sentinel"),
    Payload(subprocess.run, ["touch", "sentinel"]),
    Payload(subprocess.Popen, ["touch", "sentinel"]),
    Payload(subprocess.check_output, ["touch", "sentinel"]),
    Payload(eval, TOUCH),
    Payload(exec, TOUCH),
    Payload(open, "sentinel", "w"),
    Payload(io.FileIO, "sentinel", "w"),
    Payload(Path.touch, Path("sentinel")),
    Payload(functools.partial(os.mkdir, "sentinel")),
    Payload(functools.reduce, operator.methodcaller("touch"), [Path("sentinel")]),
    Payload(runpy.run_path, "evil.py"),
    Payload(importlib.import_module, "evil"),
    Payload(timeit.timeit, TOUCH, "", timeit.default_timer, 1),
    Payload(code.InteractiveInterpreter.runsource, code.InteractiveInterpreter(), TOUCH),
    Payload(getattr, os, "system"),
    Payload(torch.save, {}, "sentinel"),
    Payload(np.save, "sentinel", 1),
]
BY_HAND = [
    b"cos\nsystem\n(S'touch sentinel'\ntR.",  # protocol 0
    b"(S'touch sentinel'\nios\nsystem\n.",  # INST
    b"(cos\nsystem\nS'touch sentinel'\no.",  # OBJ
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch sentinel\x85R.",  # STACK_GLOBAL
    b"\x80\x02}q\x00cos\nsystem\nX\x0e\x00\x00\x00touch sentinel\x85R0.",  # beside a dictionary
    b"\x80\x02cbuiltins\nexec\nX\x1d\x00\x00\x00open('sentinel', 'w').close()\x85R.",
    b"\x80\x02ctorch.storage\n_load_from_bytes\nU\x00\x85R.",
    b"\x80\x02ctorch\nload\nX\x08\x00\x00\x00evil.pth\x85R.",
    b"\x80\x02cpathlib\nPath\nX\x08\x00\x00\x00sentinel\x85R.",
    b"\x80\x02\x82\x01.",  # EXT1
]


def programs() -> list[bytes]:
    found = []
    for payload in CALLS:
        try:
            found.append(pickle.dumps(payload, 2))
        except Exception:  # pickle has its own opinion of a few
            continue
    return found + BY_HAND


def zipped(program: bytes, name: str = "archive/data.pkl") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, program)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def object_array(program: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + program


SMALL = np.zeros((1, 16, 16, 3), np.uint8)


def test_no_program_in_a_file_runs(tmp_path, monkeypatch):
    """Every payload as weights, as images and labels, as a run and as a training, in every reader.
    Kills: an unpickler anywhere; a list of what is forbidden instead of what is allowed."""
    monkeypatch.chdir(tmp_path)
    payloads = programs()
    assert len(payloads) >= 25
    path = tmp_path / "file"
    readers = (
        load_denoiser,
        load_images,
        lambda file: load_labels(file, 1),
        lambda file: train(SMALL, None, SCHEDULE, n_feat=8, checkpoint=file, resume=True),
        Run.load,
    )
    for program in payloads:
        for content in (program, zipped(program), object_array(program)):
            path.write_bytes(content)
            for read in readers:
                with pytest.raises(InputError) as error:
                    read(path)
                assert "\n" not in str(error.value) and "weights_only" not in str(error.value)
            assert os.listdir(tmp_path) == ["file"]


def test_the_payloads_would_run(tmp_path, monkeypatch):
    """So that the test above means something. Kills: payloads that do nothing anywhere."""
    monkeypatch.chdir(tmp_path)
    ran = 0
    for program in (programs()[0], BY_HAND[0], BY_HAND[3]):
        command = [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)"]
        subprocess.run(command, input=program, capture_output=True, check=False, cwd=tmp_path)
        ran += (tmp_path / "sentinel").exists()
        (tmp_path / "sentinel").unlink(missing_ok=True)
    assert ran == 3


# -------------------------------------------------------------------- names from anywhere

HOSTILE = {
    "script": "</script><script>window.hacked=1</script>",
    "image": "<img src=x onerror=window.hacked=1>",
    "quotes": '"\'` onmouseover=window.hacked=1 x="',
    "template": "{{7*7}}{% raw %}{0}{arm}%s%(x)s${x}",
    "right to left": "a\u202egnp.exe\u2066x",
    "lines": "one\ntwo\r\nthree\u2028four",
    "long": "x" * 10_000,
    "path": "../../etc/passwd",
    "nul": "a\0b",
    "terminal": "\x1b[2J\x1b]0;title\x07",
    "wide": "é 漢字 🎨 \U0001f468\u200d\U0001f469",
    "comment": "<!--<script>--><![CDATA[",
    "latex": "$\\input{/etc/passwd}$",
}


class Page(HTMLParser):
    """The tags of a page, with the attributes that could act."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.handlers = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


SCHEDULE = NoiseSchedule.course(6, 1e-3, 0.3)


def named_run(*names, whole=None):
    """Arms and classes of these names, and data of the name ``whole``."""
    images = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)
    whole, kinds = whole or names[0], np.arange(24) % len(names)
    denoiser = DatasetDenoiser(SCHEDULE, images, kinds, names, whole)
    arms = [Arm(name, ddpm(), float(i != 1)) for i, name in enumerate(names)]
    return record(denoiser, SCHEDULE, arms=arms, n=3, progress=False)


def test_names_stay_text_in_report_figures_and_numbers(tmp_path):
    """The page has the tags of a page with plain names, and no handler. Kills: a name put into
    HTML, a script, a style or a format string as it is."""
    names = [name for kind, name in HOSTILE.items() if kind != "nul"]
    plain, out = tmp_path / "plain.html", tmp_path / "report.html"
    write_report(named_run(*(f"arm {i}" for i in range(len(names)))), plain, title="a title")
    run = named_run(*names, whole="".join(names))
    write_report(run, out, title="".join(names))
    text = out.read_text("utf-8")
    page, expected = Page(text), Page(plain.read_text("utf-8"))
    assert page.tags == expected.tags
    assert page.handlers == expected.handlers
    assert "<script>window.hacked" not in text and "<img src=x" not in text
    view = re.search(r'<script[^>]*id="view">(.*?)</script>', text, re.S)
    assert json.loads(view[1])["arms"] == names
    write_numbers(run, tmp_path / "numbers.json")
    stored = json.loads((tmp_path / "numbers.json").read_text("utf-8"))
    assert stored["coords"]["arm"]["data"] == names
    for finding in diagnose(run):
        assert finding.text("en") and finding.text("zh")


@pytest.mark.parametrize("name", ["script", "image", "template", "right to left"])
def test_names_stay_text_in_figures(name):
    """Kills: a name that closes the script of a figure's page."""
    run = named_run(HOSTILE[name], "b")
    for picture in ("ks", "mean"):
        page = plot(run, picture).to_html(include_plotlyjs=False)
        assert "<script>window.hacked" not in page and "<img src=x" not in page


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "nul"])
def test_the_terminal_is_told_text(name, tmp_path, monkeypatch, capsys):
    """A name as an arm, a file and a denoiser: one line each, of a readable length, with nothing
    that steers a terminal. Kills: printing what was given as it is."""
    monkeypatch.chdir(tmp_path)
    bad = HOSTILE[name]
    for arguments in (
        ["record", "--arms", bad, "--denoiser", "gaussian:0,1"],
        ["record", "--denoiser", bad],
        ["report", bad],
        ["figure", bad, bad, "-o", "x.html"],
        ["record", "--denoiser", "gaussian:0,1", "--device", bad],
        ["schedule", "--schedule", bad],
        ["schedule", "--lang", bad],
        ["xray", bad],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and line.endswith("\n") and len(line) < 700
        assert all(c.isprintable() for c in line.rstrip("\n")), line
    assert not os.listdir(tmp_path)


def test_findings_of_a_hostile_run_steer_no_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    named_run("b", HOSTILE["terminal"]).save("run.nc")
    with pytest.raises(SystemExit):  # the second arm has no noise
        main(["diagnose", "run.nc"])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\\x1b[2J" in shown


# -------------------------------------------------------------------- promises and tests

PROMISES = ROOT / "docs" / "trust.md"


def test_each_promise_names_a_test_that_exists():
    """Kills: a promise whose test was renamed, or never written."""
    text = PROMISES.read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 20
    for file, function in named:
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in functions, f"{file}::{function}"
    promises = re.split(r"\n(?=- |#|$)", text.partition("## What is not promised")[0])
    assert all("`tests/" in part for part in promises if part.startswith("- "))
