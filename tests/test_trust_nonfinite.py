"""A sampler that stops being finite: the step is named, and what came before is kept and shown."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from dashboards.stage import clock, on_the_way
from diffviz.diagnosis.findings import diagnose
from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError, NonfiniteError
from diffviz.figures import available, plot
from diffviz.recording.record import record
from diffviz.recording.run import Run
from diffviz.report import report_numbers, write_report

SCHEDULE = NoiseSchedule.linear(30, 1e-3, 0.2)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)


class Breaking:
    """An exact denoiser whose answers to some arms hold one bad value from t on."""

    schedule, name = SCHEDULE, "breaking"

    def __init__(self, exact, t, arms, value=math.nan):
        self.exact, self.t, self.arms, self.value = exact, t, arms, value
        self.sample_shape, self.law = exact.sample_shape, exact.law
        self.calls = 0

    def __call__(self, x, t, context=None):
        self.calls += 1
        eps = self.exact(x, t, context)
        if t <= self.t:
            rows = eps.reshape(3, -1).clone()
            rows[self.arms, 3] = self.value
            eps = rows.reshape(x.shape)
        return eps


def pictures():
    return DatasetDenoiser(SCHEDULE, IMAGES, np.arange(12) % 2, ("even", "odd"))


def broken_run(t, arms, out=None, exact=None, **options):
    denoiser = Breaking(exact or pictures(), t, arms, options.pop("value", math.nan))
    with pytest.raises(NonfiniteError) as error:
        record(denoiser, SCHEDULE, n=options.pop("n", 6), progress=False, out=out, **options)
    return error.value, denoiser


@pytest.mark.parametrize(
    ("t", "arms", "value"),
    [(30, [0, 1, 2], math.nan), (12, [1], -math.inf), (1, [0, 2], math.inf)],
)
def test_the_step_and_the_arms_are_named_and_the_run_is_kept(tmp_path, t, arms, value):
    """Kills: a step off by one; a healthy arm that is cut with the broken one; a kept run that
    cannot be read."""
    out = tmp_path / "run.nc"
    error, _ = broken_run(t, arms, out, value=value)
    names = [DEFAULT_ARMS[arm].name for arm in arms]
    line = str(error)
    assert f"not finite at t = {t}," in line and f"in arm {', '.join(names)};" in line
    assert str(out) in line and "\n" not in line
    run = Run.load(out)
    assert run == error.run and run.broken == dict.fromkeys(names, t)
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]
    found = {f.arm: f.t_range for f in diagnose(run) if f.id == "nonfinite"}
    assert found == dict.fromkeys(names, (t, 0))


def test_the_first_step_that_breaks_is_the_one_named():
    """Two arms break one after the other. Kills: the last one named, where the first says why."""

    class Twice(Breaking):
        def __call__(self, x, t, context=None):
            self.arms = [1] if t > 12 else [1, 2]
            return super().__call__(x, t, context)

    with pytest.raises(NonfiniteError, match=r"not finite at t = 20,.* in arm z=0;") as error:
        record(Twice(pictures(), 20, [1]), SCHEDULE, n=6, progress=False)
    assert error.value.run.broken == {"z=0": 20, "ddim": 12}


@pytest.mark.parametrize("arm", [0, 1])
def test_up_to_the_step_and_in_the_other_arms_nothing_changes(arm):
    """To the bit. Kills: statistics of stand-ins that get into the run; an arm that another arm's
    end disturbs."""
    error, _ = broken_run(12, [arm])
    whole = record(pictures(), SCHEDULE, n=6, progress=False).dataset
    run, names = error.run.dataset, [one.name for one in DEFAULT_ARMS]
    others = [name for name in names if name != names[arm]]
    assert run.sel(arm=others).drop_attrs().equals(whole.sel(arm=others).drop_attrs())
    broken, there = run.isel(arm=arm), whole.isel(arm=arm)
    after = {"x": run["t"] < 12, "eps": run["t"] <= 12, "residual": run["t"] >= 0}
    late = dict.fromkeys(("noise_std", "noise_ks", "noise_ks_p", "noise_ks_error"), "eps")
    late["noise_level"] = "residual"
    kinds = [(name, q) for name in run.data_vars for q in after if "t" in broken[name].dims]
    for name, quantity in kinds:
        here, want = broken[name], there[name]
        if "quantity" in here.dims:
            here, want = here.sel(quantity=quantity), want.sel(quantity=quantity)
        gone = after[late.get(name, quantity if "quantity" in run[name].dims else "x")]
        if "arm" not in run[name].dims:
            gone = gone & False
        nothing = (here == 0) if here.dtype.kind in "iu" else here.isnull()
        assert nothing.where(gone, True).all(), (name, quantity)
        assert here.where(~gone).equals(want.where(~gone)), (name, quantity)
    for name, times in (("frames", "frame_t"), ("snapshots", "snapshot")):
        gone = broken[times] < 12
        here, want = (data[name].values[~gone.values] for data in (broken, there))
        np.testing.assert_array_equal(here, want)
        rest = broken[name].values[gone.values]
        assert (rest == 0).all() if name == "frames" else np.isnan(rest).all()
    assert (broken["class_count"] == 0).all() and np.isnan(broken["nearest_distance"])
    assert np.isnan(broken["samples"]).all() and np.isnan(broken["distinct_nearest"])


def test_blocks_before_the_broken_one_count(tmp_path):
    """The third of four blocks breaks: the run holds three, and resuming starts afresh. Kills: a
    kept run that says it has all samples; a broken run taken for a finished one."""

    class Third(Breaking):
        def __call__(self, x, t, context=None):
            self.t = 10 if self.calls >= 60 else 0
            return super().__call__(x, t, context)

    out = tmp_path / "run.nc"
    denoiser = Third(GaussianDenoiser(SCHEDULE, np.zeros(8), 1.0), 0, [0, 1, 2])
    with pytest.raises(NonfiniteError) as error:
        record(denoiser, SCHEDULE, n=14, block=4, progress=False, out=out)
    assert error.value.run.spec.n == 12
    assert error.value.run.dataset.attrs["blocks"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]
    exact = GaussianDenoiser(SCHEDULE, np.zeros(8), 1.0)
    again = record(exact, SCHEDULE, n=14, block=4, progress=False, out=out, resume=True)
    assert again == record(exact, SCHEDULE, n=14, block=4, progress=False) == Run.load(out)


def test_a_state_that_leaves_float32_is_named_too():
    """ε̂ stays finite, the state does not. Kills: looking at answers only."""

    def denoiser(x, t, context=None):
        eps = x.clone()
        eps[:4] = (-1e15 * x[:4]).nan_to_num().clamp(-3e38, 3e38)
        return eps

    arms = [Arm("a", ddpm()), Arm("b", ddpm(), 0.5)]
    with pytest.raises(NonfiniteError, match=r"at t = 2\d, .* in arm a;") as error:
        record(denoiser, SCHEDULE, arms=arms, n=4, sample_shape=(3,), progress=False)
    assert list(error.value.run.broken) == ["a"]


@pytest.mark.parametrize("arms", [[0, 1, 2], [1]])
@pytest.mark.parametrize("exact", ["pictures", "numbers"])
def test_everything_that_shows_a_run_shows_this_one(tmp_path, exact, arms):
    """Every picture, the report in words, its numbers and the dashboard's page, without a warning.
    Kills: a minimum over NaN, a division by no count, NaN in JSON."""
    law = pictures() if exact == "pictures" else GaussianDenoiser(SCHEDULE, np.zeros(5), 1.0)
    broken_run(20, arms, tmp_path / "run.nc", law)
    run = Run.load(tmp_path / "run.nc")
    for name in available(run):
        assert json.loads(plot(run, name).to_json())
    assert json.dumps(report_numbers(run), allow_nan=False)
    told = clock(run, "en", tuple(available(run))), on_the_way(run)
    assert json.dumps(told, allow_nan=False)
    if exact == "pictures":
        write_report(run, tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text("utf-8")
        for words in ("some numbers are NaN or infinite", "出现 NaN 或无穷大"):
            assert words in page
        assert page.count("t = 20") >= 2


class Silent(Exception):
    def __str__(self):
        raise ValueError


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: None, "returned NoneType at t = 7; not a tensor"),
        (lambda x: x.numpy(), "returned ndarray at t = 7; not a tensor"),
        (lambda x: (x, x), "returned tuple at t = 7; not a tensor"),
        (lambda x: x[:, :1], "returned shape (6, 1) at t = 7; allowed is (6, 2)"),
        (lambda x: x[0], "returned shape (2,) at t = 7"),
        (lambda x: x.long(), "returned torch.int64 on cpu at t = 7"),
        (lambda x: x.to(torch.complex64), "returned torch.complex64 on cpu at t = 7"),
        (lambda x: x.to("meta"), "returned torch.float32 on meta at t = 7"),
        (lambda x: x.to_sparse(), "at t = 7; allowed are floating point numbers"),
        (lambda x: 1 / 0, "raised ZeroDivisionError at t = 7: division by zero"),
        (lambda x: x.to(torch.float8_e5m2), "returned torch.float8_e5m2 on cpu at t = 7"),
        (lambda x: sys.exit("gone"), "raised SystemExit at t = 7: gone"),
        (lambda x: raising(Silent()), "raised Silent at t = 7: no message"),
        (lambda x: raising(InputError("two\nlines")), "two lines"),
        (lambda x: x @ x, "raised RuntimeError at t = 7: "),
        (lambda x: x * math.nan, "not finite at t = 7,"),
    ],
)
def test_an_unusable_answer_names_the_step_and_leaves_no_file(tmp_path, answer, words):
    """Kills: a check before the loop only; a traceback from inside the sampler; a cast of what is
    no number."""

    def denoiser(x, t, context=None):
        return answer(x) if t == 7 else x * 0.5

    with pytest.raises(InputError) as error:
        record(denoiser, SCHEDULE, n=2, sample_shape=(2,), progress=False)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_an_answer_of_another_precision_is_taken(dtype):
    """A model in half precision is no mistake. Kills: a state that takes the answer's type."""
    run = record(
        lambda x, t, context=None: (x * 0.5).to(dtype),
        SCHEDULE,
        n=4,
        sample_shape=(2,),
        progress=False,
    )
    assert run.dataset["samples"].dtype == np.float32 and not run.broken
