"""diffusers' schedulers under the x-ray, its pipelines under the probe.

One module, because importing diffusers takes as long as a few hundred x-rays.
"""

import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import diffviz as dv
from diffviz.adapters.diffusers import instrument, sampler_of, schedule_of
from diffviz.errors import InputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of diffusers itself and of what it imports
    diffusers = pytest.importorskip("diffusers")
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    for name in ("DDPMPipeline", "DDIMPipeline", "UNet2DModel"):
        getattr(diffusers, name)  # they are imported when asked for

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SHAPE = (16, 3, 8, 8)
BETAS = ["linear", "scaled_linear", "squaredcos_cap_v2"]
FREE = {"clip_sample": False}
SMALL, LARGE = {"variance_type": "fixed_small"}, {"variance_type": "fixed_large"}
SCHEDULERS = [
    ("DDPMScheduler", FREE | SMALL, {}, "ddpm/posterior"),
    ("DDPMScheduler", LARGE, {}, "ddpm/beta"),
    ("DDIMScheduler", FREE, {"eta": 0.0}, "ddim(eta=0)"),
    ("DDIMScheduler", {}, {"eta": 0.5}, "ddim(eta=0.5)"),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, {}, None),
    ("EulerAncestralDiscreteScheduler", {}, {}, None),
    ("DPMSolverMultistepScheduler", {}, {}, "dpm-solver++(2m)"),
    ("DEISMultistepScheduler", {}, {}, None),
    ("LMSDiscreteScheduler", {}, {}, None),
    ("UniPCMultistepScheduler", {}, {}, None),
]


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize(("betas", "steps"), [("linear", 10), ("squaredcos_cap_v2", 45)])
def test_the_usual_schedulers_are_right(betas, steps):
    """Untouched, each behaves, and is what it says it is where that has a name.

    Kills: another index for t, clipping taken for noise, a rule with a memory blamed for it.
    """
    for name, options, step, rule in SCHEDULERS:
        scheduler = getattr(diffusers, name)(**options, beta_schedule=betas)
        torch.manual_seed(0)
        seen = dv.xray(sampler_of(scheduler, steps, step), schedule_of(scheduler), shape=SHAPE)
        errors = [found.message for found in seen.findings if found.severity == "error"]
        assert seen.behaves and errors == [], (name, options, step)
        clips = name.startswith("DD") and options.get("clip_sample", True)
        ids = {found.id for found in seen.findings}
        if clips and steps == 10 and seen.rule is None:
            # Ten steps, all of them clipped: too little of them is linear to tell the rule.
            assert "not-linear" in ids, name
            continue
        assert rule is None or seen.rule == rule, (name, options, step)
        assert ("x0-clipped" in ids) == clips, name


@pytest.mark.parametrize("betas", [*BETAS, "sigmoid"])
def test_the_schedule_of_a_scheduler(betas):
    """Kills: an index off by one, the β of another schedule."""
    scheduler = diffusers.DDPMScheduler(beta_schedule=betas)
    schedule = schedule_of(scheduler)
    assert schedule.T == 1000 and schedule.violations() == []
    own = scheduler.alphas_cumprod.double().numpy()
    np.testing.assert_allclose(schedule.alpha_bars[1:], own, rtol=2e-4)
    ours = {
        "linear": dv.NoiseSchedule.linear(1000),
        "scaled_linear": dv.NoiseSchedule.scaled_linear(1000, 1e-4, 0.02),
        "squaredcos_cap_v2": dv.NoiseSchedule.cosine(1000),
    }
    if betas in ours:
        np.testing.assert_allclose(schedule.alpha_bars, ours[betas].alpha_bars, rtol=2e-4)


def test_a_schedule_that_ends_at_zero():
    """Kills: ᾱ_T of a scheduler replaced by the product of its β."""
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    assert schedule_of(diffusers.DDIMScheduler(**options)).alpha_bars[-1] == 0
    euler = schedule_of(diffusers.EulerAncestralDiscreteScheduler(**options))
    assert euler.alpha_bars[-1] == 2.0**-24


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"])
def test_a_scheduler_of_another_kind(name):
    with pytest.raises(InputError, match=f"{name} is not one of variance-preserving"):
        schedule_of(getattr(diffusers, name)())


# -------------------------------------------------------------------- pipelines


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()


def called(pipeline, n=6, steps=12, **options):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        batch_size=n,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
        **options,
    ).images


@pytest.mark.parametrize("predicts", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("clip", [True, False])
def test_a_pipeline_is_recorded_and_restored(unet, predicts, clip):
    """The same images, the same pipeline, and an ordinary run.

    Kills: a step left patched, a random number drawn, clipping read as noise.
    """
    scheduler = diffusers.DDPMScheduler(prediction_type=predicts, clip_sample=clip)
    pipeline = diffusers.DDPMPipeline(unet, scheduler)
    plain = called(pipeline)
    before = dict(vars(scheduler))
    with instrument(pipeline) as recording:
        images = called(pipeline)
    np.testing.assert_array_equal(images, plain)
    after = vars(scheduler)
    assert after.keys() == before.keys() and "step" not in after
    assert scheduler.step.__func__ is diffusers.DDPMScheduler.step
    run = recording.run
    assert run.spec.arms[0] == {"name": "probe", "rule": "ddpm/posterior", "noise_scale": 1.0}
    assert run.dataset["t"].values[[0, -2, -1]].tolist() == [914, 1, 0]
    shown = (run.dataset["samples"].values[0] / 2 + 0.5).clip(0, 1).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(shown, plain, atol=1e-6)
    assert recording.runs == (run,)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_ddim_pipeline(unet, eta):
    """`eta` still reaches the step: the pipeline looks at its signature. Kills: a bare wrapper."""
    pipeline = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler(clip_sample=False))
    plain = called(pipeline, eta=eta)
    with instrument(pipeline) as recording:
        np.testing.assert_array_equal(called(pipeline, eta=eta), plain)
    rule = {0.0: "ddim(eta=0)", 0.5: "ddim(eta=0.5)", 1.0: "ddpm/posterior"}[eta]
    assert recording.run.spec.arms[0]["rule"] == rule


def test_a_pipeline_that_raises_is_restored(unet):
    scheduler = diffusers.DDPMScheduler()
    pipeline, before = diffusers.DDPMPipeline(unet, scheduler), dict(vars(scheduler))
    with pytest.raises(ZeroDivisionError), instrument(pipeline):
        scheduler.set_timesteps(3)
        raise ZeroDivisionError
    assert vars(scheduler).keys() == before.keys()
    with instrument(pipeline) as recording:
        pass
    with pytest.raises(InputError, match="took no step"):
        _ = recording.run
    with pytest.raises(InputError, match="int has no scheduler"), instrument(3):
        pass


def guided(scheduler, unet, steps, n=4):
    """The loop of a pipeline with guidance, which doubles the batch."""
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(steps)
    x = torch.randn((n, 3, 8, 8), generator=generator) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([x, x]), t)
        with torch.no_grad():
            plain, given = unet(both, t, return_dict=False)[0].chunk(2)
        answer = plain + 3 * (0.9 * given - plain)
        x = scheduler.step(answer, t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("EulerDiscreteScheduler", {}, "ddim(eta=0)"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, "ddim(eta=0)"),
        ("DPMSolverMultistepScheduler", {}, "dpm-solver++(2m)"),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "dpm-solver++(2m)"),
        ("UniPCMultistepScheduler", {}, "unknown"),
    ],
)
def test_the_scheduler_of_a_loop_of_ones_own(unet, name, options, rule):
    """States in σ form, times between the schedule's, guidance in the answer.

    Kills: σ read off a rounded t, a state kept as x/√ᾱ, the answer of the model for that used.
    """
    scheduler = getattr(diffusers, name)(**options)
    plain = guided(scheduler, unet, 12)
    with instrument(scheduler) as recording:
        first = guided(scheduler, unet, 12)
        second = guided(scheduler, unet, 12)
    assert torch.equal(plain, first) and torch.equal(plain, second)
    one, two = recording.runs
    assert one.spec == two.spec and one.spec.arms[0]["rule"] == rule
    assert float(one.dataset["noise_std"].max()) == 0
    levels = np.asarray(scheduler.sigmas, dtype=np.float64)[:-1]
    bars = one.schedule.alpha_bars[one.dataset["t"].values[:-1]]
    np.testing.assert_allclose(bars, 1 / (1 + levels**2), rtol=1e-3)
    assert float(one.dataset["std"].sel(arm="probe", quantity="x")[0]) == pytest.approx(1, abs=0.1)


def test_the_probe_around_the_network(unet):
    """A probe in place of the network sees what `instrument` sees. Kills: guidance not undone."""
    scheduler = diffusers.EulerDiscreteScheduler()
    with instrument(scheduler) as recording:
        plain = guided(scheduler, unet, 12)
    probe = dv.Probe(unet, schedule_of(scheduler), answer="eps")
    # The second half of the batch is scaled after the call, so the two answers are what is scaled.
    end = guided(scheduler, probe, 12)
    assert torch.equal(end, plain)
    run = probe.finish(end)
    assert run.spec.n == 4 and recording.run.spec.arms[0]["rule"] == "ddim(eta=0)"
    for field in ("mean", "std"):
        np.testing.assert_allclose(
            run.dataset[field].sel(quantity="x"),
            recording.run.dataset[field].sel(quantity="x"),
            atol=1e-5,
        )


def test_the_extra_is_tested():
    """`make test` installs diffusers, so nothing here is skipped. Kills: a skip for good."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    assert extras["diffusers"][0] in extras["test"]
