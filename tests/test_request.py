"""What a user may order: one check, one line for every mistake, and an estimate without torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffviz as dv
from diffviz.errors import InputError
from diffviz.recording.request import RecordRequest
from diffviz.sprites.make import CLASSES

QUICK = {"denoiser": "gaussian:2,0.5", "T": 12, "n": 30}


def test_an_order_is_recorded_as_it_was_given(tmp_path):
    """The same run as by `record`, and through JSON as well. Kills: a field that is dropped."""
    given = {
        **QUICK,
        **{"schedule": "linear", "beta_start": 0.01, "beta_end": 0.2},
        **{"arms": "ddpm*0.5, z=0", "seed": 3, "block": 20, "steps": 5},
    }
    request = RecordRequest(**given)
    assert request.arms == ("ddpm*0.5", "z=0")
    again = RecordRequest.model_validate_json(request.model_dump_json())
    assert again == request
    run = again.run(progress=False, out=tmp_path / "a.nc")
    schedule = dv.NoiseSchedule.linear(12, 0.01, 0.2)
    expected = dv.record(
        dv.GaussianDenoiser(schedule, 2.0, 0.5),
        schedule,
        arms=[dv.Arm("ddpm*0.5", dv.ddpm(), 0.5), dv.Arm("z=0", dv.ddpm(), 0.0)],
        **{"n": 30, "seed": 3, "block": 20, "steps": 5, "progress": False},
    )
    assert run == expected == dv.Run.load(tmp_path / "a.nc")


def test_every_denoiser_can_be_named(tmp_path, monkeypatch):
    """Kills: numbers of a mixture in another order; a folder taken for a file."""
    monkeypatch.chdir(tmp_path)
    np.save("points.npy", np.random.default_rng(0).normal(size=(5, 2)))
    Path("pictures").mkdir()
    for i in range(2):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(f"pictures/{i}.png")
    for words, name in (
        ("gaussian:2,0.5", "gaussian(2, 0.5)"),
        ("mixture:-1,0.2,0.7;1.5,0.3,0.3", "mixture(0.7·N(-1, 0.2²); 0.3·N(1.5, 0.3²))"),
        ("dataset:points.npy", "dataset(points.npy, N=5)"),
        ("dataset:pictures", "dataset(pictures, N=2)"),
    ):
        assert RecordRequest(denoiser=words).make()[0].name == name


def test_a_class_of_a_data_set_is_sampled_alone():
    request = RecordRequest(denoiser="dataset:sprites", T=20, n=6, label="food", arms=["ddim"])
    run = request.run(progress=False)
    share = run.dataset["reference_class_share"].values
    assert share.tolist() == pytest.approx([float(name == "food") for name in CLASSES])
    assert run.spec.label == "food"
    counts = run.dataset["class_count"].sel(arm="ddim").values
    assert counts[CLASSES.index("food")] == 6


def test_what_is_not_said_is_the_networks_own_or_the_tutorials():
    denoiser, schedule = RecordRequest().make()
    assert schedule is denoiser.schedule and denoiser.classes == CLASSES
    _, schedule = RecordRequest(denoiser="gaussian:0,1").make()
    assert schedule == dv.NoiseSchedule.course()
    _, schedule = RecordRequest(T=40).make()
    assert schedule == dv.NoiseSchedule.course(40)
    assert RecordRequest().arms == ("ddpm", "z=0", "ddim")


MISTAKES = {
    "n is 0; allowed are the integers 1…": {"n": 0},
    "n is True": {"n": True},
    "n is '5'": {"n": "5"},
    "n is 1.5": {"n": 1.5},
    "seed is -1; allowed are the integers 0…4294967295": {"seed": -1},
    "T is 10001": {"T": 10_001},
    "T is 0": {"T": 0},
    "beta_end is 1": {"beta_end": 1},
    "arm is ''": {"arms": ""},
    "SCALE ≥ 0": {"arms": "ddpm*-1"},
    "arm is 'ddpm*nan'": {"arms": "ddpm*nan"},
    "eta is 2.0": {"arms": "ddim(eta=2)"},
    "gaussian:MEAN,STD": {"denoiser": "gaussian:2"},
    "beta_end is nan; allowed is 0 < β < 1": {"beta_end": float("nan")},
    "0 < start ≤ end < 1": {"beta_start": 0.3, "beta_end": 0.1},
    "beta_end with the cosine schedule": {"schedule": "cosine", "beta_end": 0.1},
    "schedule is 'sine'; allowed: course": {"schedule": "sine"},
    "arm is 'magic'; allowed": {"arms": "ddpm,magic"},
    "arms is 3; allowed": {"arms": 3},
    "each with its own name": {"arms": ["ddpm", "ddpm/beta"]},
    "steps is 13; allowed are the integers 1…12": {"steps": 13},
    "class is 'hero'; allowed: none": {"label": "hero"},
    "class is 'dragon'; allowed: hero": {"denoiser": "dataset:sprites", "label": "dragon"},
    "no such file": {"denoiser": "nothing.pth"},
    "denoiser is 'dataset:'": {"denoiser": "dataset:"},
    "gaussian:MEAN,STD in numbers": {"denoiser": "gaussian:nan,1"},
    "mixture:M1,S1,W1": {"denoiser": "mixture:1,2;3"},
    "'foo' is no part of an order; allowed are denoiser": {"foo": 1},
    "denoiser is 'xxx": {"denoiser": "x" * 10_000},
    "label is 3": {"label": 3},
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_of_ours(words):
    """Kills: pydantic's own report, a value that is quietly converted."""
    with pytest.raises(InputError) as error:
        RecordRequest(**{**QUICK, **MISTAKES[words]})
    line = str(error.value)
    assert words in line and "\n" not in line and len(line) < 500 and "pydantic" not in line


def test_more_work_is_estimated_to_cost_more():
    """In seconds and in bytes. Kills: a factor left out; a network taken for a number."""
    base = {"denoiser": "dataset:sprites", "T": 100, "n": 100, "arms": ["ddpm"]}
    plain = RecordRequest(**base).estimate()
    assert plain.seconds > 0 and plain.memory > 0
    for more in ({"T": 1000}, {"n": 1000}, {"arms": ["ddpm", "z=0"]}, {"denoiser": None}):
        cost = RecordRequest(**{**base, **more}).estimate()
        assert cost.seconds > plain.seconds and cost.memory > plain.memory, more
    for less in ({"steps": 20}, {"denoiser": "gaussian:0,1"}):
        assert RecordRequest(**{**base, **less}).estimate().seconds < plain.seconds, less
    network = RecordRequest(n=64).estimate()
    assert 30 < network.seconds < 1500 and 5e8 < network.memory < 4e9


def test_checking_and_estimating_need_no_torch():
    """Nor does the command line before it works. Kills: an import at the top of a module."""
    code = (
        "import sys, diffviz.cli; from diffviz.recording.request import RecordRequest; "
        "RecordRequest(arms='ddpm,ddim(eta=0.5)').estimate(); "
        "print('torch' in sys.modules, 'plotly' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
