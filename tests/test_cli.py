"""The command line as people use it: what it makes, and one line for every mistake."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffviz.cli import cli, main
from diffviz.diffusion.checkpoints import load_denoiser
from diffviz.diffusion.unet import weights_digest
from diffviz.figures import theme
from diffviz.recording.request import RecordRequest
from diffviz.recording.run import Run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*arguments):
    """Exit status of ``diffviz ARGUMENTS`` in this process."""
    try:
        main(list(map(str, arguments)))
    except SystemExit as stop:
        return stop.code
    return 0


def size_and_frames(path):
    with Image.open(path) as image:
        return image.size[0], getattr(image, "n_frames", 1)


QUICK = ("--denoiser", "gaussian:2,0.5", "--T", 12, "--n", 40)


def test_record_then_report_then_numbers(tmp_path, capsys):
    """The way from a denoiser to a page. Kills: options that are not passed on."""
    assert (
        call("record", *QUICK, "--arms", "ddpm,ddpm*0.5,ddim(eta=0.3)", "--seed", 7, "-o", "a.nc")
        == 0
    )
    run = Run.load("a.nc")
    assert run.arms == ["ddpm", "ddpm*0.5", "ddim(eta=0.3)"]
    assert run.spec.seed == 7 and run.spec.n == 40 and run.spec.steps == 12
    assert [arm["noise_scale"] for arm in run.spec.arms] == [1.0, 0.5, 1.0]
    assert run.spec.arms[2]["rule"] == "ddim(eta=0.3)"
    assert call("report", "a.nc", "-o", "a.html", "--json", "a.json") == 0
    assert Path("a.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    json.loads(Path("a.json").read_text(encoding="utf-8"))
    assert "a.html" in capsys.readouterr().out


def test_report_records_when_there_is_no_run():
    assert call("report", *QUICK, "-o", "b.html") == 0
    assert sorted(path.name for path in Path().iterdir()) == ["b.html"]


def test_schedule_says_which_invariant_fails(capsys):
    assert call("schedule", "--T", 20) == 0
    assert "the ratio is 0.9999" in capsys.readouterr().out
    assert call("schedule", "--schedule", "cosine", "--T", 20) == 0
    assert "all invariants hold" in capsys.readouterr().out


def test_sprites_are_the_tutorials_files():
    assert call("sprites", "--n", 30, "-o", "s.npy", "--labels", "l.npy", "--sheet", "s.png") == 0
    images, labels = np.load("s.npy"), np.load("l.npy")
    assert images.shape == (30, 16, 16, 3) and images.dtype == np.uint8
    assert labels.shape == (30, 5) and (labels.sum(1) == 1).all()
    assert size_and_frames("s.png")[0] > 100


def test_train_then_record_with_it(capsys):
    """From images to weights to a run; resuming a finished training does nothing."""
    call("sprites", "--n", 20, "-o", "s.npy", "--labels", "l.npy")
    training = ("train", "--images", "s.npy", "--labels", "l.npy", "--epochs", 1, "--features", 8)
    assert call(*training, "--T", 10, "-o", "w.safetensors") == 0
    assert not Path("w.safetensors.training").exists()
    before = Path("w.safetensors").read_bytes()
    assert call(*training, "--T", 10, "-o", "w.safetensors", "--resume") == 0
    assert Path("w.safetensors").read_bytes() == before
    assert call("record", "--denoiser", "w.safetensors", "--n", 2, "--class", "hero") == 0
    run = Run.load("run.nc")
    assert run.spec.steps == 10 and run.spec.label == "hero"


GOOD = ("record", "--denoiser", "gaussian:2,0.5", "--T", "5", "--n", "4", "-o", "x.nc")


def bad(*changes):
    return [*GOOD, *map(str, changes)]


MISTAKES = {
    "T=1.5": (bad("--T", 1.5), "'1.5' is not a valid integer"),
    "class of sprites": (bad("--denoiser", "dataset:sprites", "--class", "x"), "hero, non-hero"),
    "device": (bad("--device", "abacus"), "device is 'abacus'"),
    "executor": (bad("--executor", "threads:2"), "allowed: processes:N"),
    "gaussian std": (bad("--denoiser", "gaussian:2,-1"), "std is -1"),
    "dataset": (bad("--denoiser", "dataset:nothing.npy"), "no such file"),
    "weights": (bad("--denoiser", "missing.safetensors"), "missing.safetensors"),
    "folder out": (bad("-o", "no/such/x.nc"), "does not exist"),
    "out is folder": (bad("-o", "."), "is a folder"),
    "out is a device": (bad("-o", os.devnull), "is a device or socket"),
    "out is the run": (["report", "page.html", "-o", "page.html"], "named twice"),
    "out is the weights": (bad("--denoiser", "page.html", "-o", "page.html"), "named twice"),
    "out is labels": (["sprites", "-o", "a.npy", "--labels", "./a.npy"], "named twice"),
    "host empty": (["dashboard", "--host", ""], "host is ''; allowed"),
    "host no name": (["dashboard", "--host", "a..b"], "a..b port 8050 cannot be used"),
    "no run": (["report", "missing.nc"], "missing.nc: no such file"),
    "not a run": (["report", "page.html"], "not a run of diffviz"),
    "language": (["report", "x.nc", "--lang", "tlh"], "is not one of 'en', 'zh'"),
    "run and options": (["report", "page.html", "--n", "3"], "nothing is recorded"),
    "figure name": (["figure", "cake", "page.html", "-o", "a.png"], "not a run"),
    "option": (["record", "--bogus"], "--bogus"),
    "command": (["recrod"], "recrod"),
    "sprites": (["sprites", "--n", "0"], "n = 0"),
    "train images": (["train", "--images", "page.html"], "page.html"),
    "train labels": (["train", "--labels", "page.html"], "labels without images"),
    "train epochs": (["train", "--epochs", "0"], "epochs is 0"),
    "title in latin-1": (["report", *GOOD[1:], "--title", "caf\udce9"], "not UTF-8"),
    "xray for ever": (["xray", "os:getcwd", "--seconds", "1e300"], "seconds is 1e+300"),
    "complex images": (bad("--denoiser", "dataset:complex.npy"), "complex.npy: holds complex128"),
    "train resume": (["train", "--resume", "-o", "page.html"], "page.html"),
    "train size": (["train", "--images", "wide.npy"], "height is 17; allowed are 16"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(mistake, capsys):
    """No traceback, nothing left behind. Kills: a check made after the work."""
    Path("page.html").write_text("<!doctype html><p>hello")
    np.save("wide.npy", np.zeros((2, 17, 17, 3), np.uint8))
    np.save("complex.npy", np.zeros((2, 3), np.complex128))
    before = sorted(path.name for path in Path().iterdir())
    arguments, words = MISTAKES[mistake]
    assert call(*arguments) == 2
    shown = capsys.readouterr()
    lines = shown.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("diffviz: ")
    assert words in lines[0]
    assert sorted(path.name for path in Path().iterdir()) == before


def test_picture_mistakes_are_named(capsys):
    call("record", *QUICK, "-o", "g.nc")
    for arguments, words in (
        (("cake", "g.nc", "-o", "a.png"), "picture is 'cake'; allowed: map"),
        (("mean", "g.nc", "-o", "a.bmp"), "allowed: .png"),
        (("strips", "g.nc", "-o", "a.html"), "has the numbers for ks"),
        (("mean", "g.nc", "-o", "a.html", "--t", 13), "t is 13"),
        (("diversity", "g.nc", "-o", "a.html"), "has the numbers for ks"),
    ):
        assert call("figure", *arguments) == 2
        assert words in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["g.nc"]


def test_pictures_without_a_browser():
    """HTML pages need none. Kills: a page that changes the configuration of all after it."""
    arguments = ("--denoiser", "dataset:sprites", "--T", 12, "--n", 3)
    call("record", *arguments, "-o", "s.nc")
    assert call("figure", "ks", "s.nc", "-o", "ks.html") == 0
    assert theme.CONFIG["plotlyServerURL"] == ""
    assert "cloud" not in Path("ks.html").read_text("utf-8").split("Plotly.newPlot")[-1]


SAMPLER = """
import torch

from diffviz.diffusion.schedule import NoiseSchedule

s = NoiseSchedule.course(30, 1e-3, 0.4)


def right(model, scale=1.0):
    x = torch.randn(64, 8)
    for t in range(30, 0, -1):
        z = scale * torch.randn_like(x) if t > 1 else 0
        x = s.S1[t] * (x - s.S2[t] * model(x, t)) + s.S3[t] * z
    return x


def wrong(model):
    return right(model, 0.0)


def lazy(model):
    return torch.randn(64, 8)
"""


def test_xray_and_diagnose_say_what_is_wrong(tmp_path, capsys, monkeypatch):
    """Status 1 for a finding of severity error, 0 without, 2 for what is no sampler."""
    Path("my_sampler.py").write_text(SAMPLER)
    monkeypatch.syspath_prepend(tmp_path)
    options = ("--T", 30, "--beta-start", 1e-3, "--beta-end", 0.4, "--shape", "64,8")
    assert call("xray", "my_sampler:right", *options, "--report", "f.html", "--lang", "zh") == 0
    assert "ddpm/beta" in capsys.readouterr().out
    assert 'data-language="zh"' in Path("f.html").read_text("utf-8")
    assert call("xray", "my_sampler:wrong", *options, "--json", "f.json") == 1
    assert "[error] noise-missing" in capsys.readouterr().out
    assert json.loads(Path("f.json").read_text("utf-8"))["findings"][0]["id"] == "noise-missing"
    for wrong in ("my_sampler:lazy", "my_sampler:nothing", "my_sampler", "nowhere:f"):
        assert call("xray", wrong, *options) == 2
        assert capsys.readouterr().err.count("\n") == 1
    quick = ("--denoiser", "gaussian:2,0.5", "--T", 100, "--beta-end", 0.1, "--n", 2000)
    call("record", *quick, "--arms", "ddpm", "-o", "good.nc")
    assert call("diagnose", "good.nc") == 0
    call("record", *quick, "--arms", "z=0", "-o", "bad.nc")
    capsys.readouterr()
    assert call("diagnose", "bad.nc", "--lang", "zh") == 1
    assert "[错误] noise-missing: 缺少噪声（z=0，t = " in capsys.readouterr().out


def test_every_command_has_an_example(capsys):
    """On lines of its own. Kills: a raw docstring, in which click does not see its mark."""
    for name in cli.commands:
        assert call(name, "--help") == 0
        text = capsys.readouterr().out
        assert f"\n  Example:\n    diffviz {name}" in text


def shell(script, **environment):
    """(status, standard error) of a shell script with DIFFVIZ in it for the command."""
    command = f"{sys.executable} -m diffviz.cli"
    done = subprocess.run(
        ["bash", "-c", script.replace("DIFFVIZ", command)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stderr


@pytest.fixture
def words(monkeypatch):
    """Pages without figures, which take most of the time."""
    monkeypatch.setattr("diffviz.figures.available", lambda run: [])


@pytest.fixture(scope="module")
def run_of_z_zero(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "a.nc"
    order = ("--denoiser", "gaussian:2,0.5", "--T", 100, "--beta-end", 0.1, "--n", 500)
    assert call("record", *order, "--arms", "z=0", "-o", path) == 0
    return path.read_bytes()


def lost(kind):
    """A stream that cannot be written: a full disk, or a pipe that nobody reads."""
    if kind == "full":
        return open("/dev/full", "w")
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("kind", ["full", "closed"])
@pytest.mark.parametrize("command", ["record", "report", "diagnose"])
def test_output_that_is_lost_costs_no_file_and_no_status(
    command, kind, run_of_z_zero, monkeypatch, words
):
    """Kills: printing before writing; a progress bar that ends the run; EPIPE turned into 1."""
    arguments, made, expected = {
        "record": ((*QUICK, "-o", "b.nc"), ["b.nc"], 0),
        "report": (("a.nc", "-o", "b.html", "--json", "b.json"), ["b.html", "b.json"], 0),
        "diagnose": (("a.nc", "--json", "b.json"), ["b.json"], 1),
    }[command]
    Path("a.nc").write_bytes(run_of_z_zero)
    with monkeypatch.context() as changed:
        for name in ("stdout", "stderr"):
            changed.setattr(sys, name, lost(kind))
        assert call(command, *arguments) == expected
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.close()
    assert sorted(path.name for path in Path().iterdir()) == ["a.nc", *made]
    assert all(Path(name).stat().st_size > 10 for name in made)


def test_the_place_and_the_locale_are_no_trap(run_of_z_zero):
    """Kills: a library's own words where the folder is gone; a Chinese title that only a UTF-8
    locale can pass; a folder's name taken for a file's; a status that a closed pipe changes."""
    Path("a.nc").write_bytes(run_of_z_zero)
    status, error = shell("mkdir gone; cd gone; rmdir ../gone; DIFFVIZ report ../a.nc")
    gone = "diffviz: the current folder is gone; change to one that exists\n"
    assert (status, error) == (2, gone)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    piped = "DIFFVIZ report a.nc --title 采样器 -o a.html | true; exit ${PIPESTATUS[0]}"
    assert shell(piped, **ascii_only) == (0, "")
    assert "采样器" in Path("a.html").read_text(encoding="utf-8")
    assert call("record", *QUICK, "-o", "folder/") == 2
    assert not Path("folder").exists()


def test_several_runs_make_one_report(capsys, words):
    """Kills: a report of the first run only, one that does not say what it is about, one in
    another language than was asked for; runs of one name that cannot be told apart."""
    for name, seed in (("a", 1), ("b", 2)):
        assert call("record", *QUICK, "--arms", "ddpm", "--seed", seed, "-o", f"{name}.nc") == 0
    capsys.readouterr()
    both = ("-o", "both.html", "--json", "both.json", "--lang", "zh")
    assert call("report", "a.nc", "b.nc", *both) == 0
    assert 'data-language="zh"' in Path("both.html").read_text(encoding="utf-8")
    assert "both.html: about a.nc and b.nc" in capsys.readouterr().out
    text = Path("both.json").read_text(encoding="utf-8")
    assert "ddpm · a" in text and "ddpm · b" in text
    assert call("report", "a.nc", "a.nc", "-o", "c.html") == 2
    Path("new").mkdir()
    Path("b.nc").rename("new/a.nc")
    assert call("report", "a.nc", "new/a.nc", *both) == 0
    text = Path("both.json").read_text(encoding="utf-8")
    assert "ddpm · a.nc" in text and "ddpm · new/a.nc" in text


def test_a_training_shows_its_samples_and_its_loss(capsys):
    """Kills: pictures of the last epoch only; a preview that changes what is learned."""
    call("sprites", "--n", 10, "-o", "s.npy", "--labels", "l.npy")
    training = ("train", "--images", "s.npy", "--labels", "l.npy", "--epochs", 2, "--features", 8)
    assert call(*training, "--T", 5, "-o", "a.safetensors", "--preview", "seen") == 0
    assert call(*training, "--T", 5, "-o", "b.safetensors") == 0
    names = sorted(path.name for path in Path("seen").iterdir())
    assert names == ["epoch-0001.png", "epoch-0002.png", "loss.svg"]
    assert "<polyline" in Path("seen/loss.svg").read_text(encoding="utf-8")
    one, two = (load_denoiser(f"{name}.safetensors") for name in "ab")
    assert weights_digest(one.network) == weights_digest(two.network)


def test_help_tells_the_defaults_that_are_used(capsys):
    """Kills: a default that changes in one of two places."""
    call("record", "--help")
    text = " ".join(capsys.readouterr().out.split())
    usual = RecordRequest(denoiser="gaussian:0,1")
    for words in (
        f"Samples per arm [{usual.n}]",
        f"Of x_T and z [{usual.seed}]",
        f"cpu or cuda [{usual.device}]",
        f"[{','.join(usual.arms)}]",
        f"schedule [{usual.make()[1].T}]",
    ):
        assert words in text, words
