"""Whatever a public function is given, a wrong value is one line that says what is allowed."""

import numpy as np
import pytest
import torch

import diffviz as dv

SCHEDULE = dv.NoiseSchedule.linear(5)
GAUSSIAN = dv.GaussianDenoiser(SCHEDULE, 0.0, 1.0)
IMAGES = np.zeros((2, 16, 16, 3), np.uint8)
NETWORK = dv.ContextUnet(n_feat=8)
LAW = dv.DataLaw.of_images(np.zeros((1, 3, 16, 16)))
START = torch.zeros(3)
DRAWS = torch.Generator()


def sampled(**changed):
    given = {"denoiser": GAUSSIAN, "schedule": SCHEDULE, "x_T": START, "generator": DRAWS}
    given |= changed
    first = [given.pop(name) for name in ("denoiser", "schedule", "x_T", "generator")]
    return next(dv.sample(*first, **given))


def saved(**changed):
    given = {"classes": (), "data_recipe": "mine", "data": LAW, "facts": {}, **changed}
    network, schedule = given.pop("network", NETWORK), given.pop("schedule", SCHEDULE)
    return dv.save_denoiser(given.pop("path", "w.safetensors"), network, schedule, **given)


def trained(**changed):
    given = {"images": IMAGES, "labels": None, "schedule": SCHEDULE, "n_feat": 8, **changed}
    return next(dv.train(given.pop("images"), given.pop("labels"), given.pop("schedule"), **given))


WRONG = [
    *(lambda v=v: dv.NoiseSchedule.linear(v) for v in ("5", None, 2.5, True)),
    *(lambda v=v: dv.NoiseSchedule.course(5, v) for v in ("0.1", None, 0.5j, [0.1])),
    *(lambda v=v: dv.NoiseSchedule.cosine(5, v) for v in ("a", -1, None)),
    *(lambda v=v: dv.NoiseSchedule.from_betas(v) for v in ("many", None, [0.1j], [[0.1], [1, 2]])),
    *(lambda v=v: dv.NoiseSchedule.named(v) for v in (3, None, ["course"], "no")),
    *(lambda v=v: dv.NoiseSchedule(v, v, v) for v in ("a", None, 3, {})),
    *(lambda v=v: SCHEDULE.times(v) for v in ("3", 2.5, True)),
    *(lambda v=v: dv.ddim(v) for v in ("a", None, True, 2)),
    *(lambda v=v: dv.ddpm(v) for v in (3, None, ["beta"])),
    *(lambda v=v: dv.Arm.parse(v) for v in (3, None, b"ddpm", ["ddpm"])),
    *(lambda v=v: dv.Arm("a", v) for v in (3, dv.ddpm, "ddpm")),
    *(lambda v=v: dv.Arm("a", dv.ddpm(), v) for v in ("1", None, -1, True, 1j)),
    *(lambda v=v: dv.GaussianDenoiser(v, 0.0, 1.0) for v in (3, None, "course")),
    *(lambda v=v: dv.GaussianDenoiser(SCHEDULE, v, 1.0) for v in ("a", None, 1j, [[1], [1, 2]])),
    *(lambda v=v: dv.MixtureDenoiser(SCHEDULE, v, [1.0], [1.0]) for v in ("a", None, 1.0, {})),
    *(lambda v=v: dv.DatasetDenoiser(SCHEDULE, v) for v in ("a", None, 3, np.ones((2, 2)) * 1j)),
    *(
        lambda v=v: dv.DatasetDenoiser(SCHEDULE, IMAGES, v, ("a",))
        for v in ("a", [0.5, 0], [0, 1])
    ),
    *(lambda v=v: dv.DatasetDenoiser(SCHEDULE, IMAGES, [0, 0], v) for v in (3, "a", [1])),
    *(lambda v=v: dv.DataLaw.of_images(v) for v in ("a", None, [], 1j * np.ones(3))),
    *(lambda v=v: dv.DataLaw.of_images(IMAGES, v, ("a",)) for v in ("ab", [0.5, 0], [0, 2])),
    *(lambda v=v: dv.gaussian_trajectory(SCHEDULE, v, 0, 1) for v in (3, "ddpm", None)),
    *(lambda v=v: dv.gaussian_trajectory(SCHEDULE, dv.DEFAULT_ARMS[0], v, 1) for v in ("a", 1j)),
    *(
        lambda v=v: dv.gaussian_trajectory(SCHEDULE, dv.DEFAULT_ARMS[0], 0, 1, v)
        for v in ("abc", [5.0, 0.0], [0, 5], 3, [9, 0])
    ),
    *(lambda v=v: sampled(denoiser=v) for v in (3, None, "net")),
    *(lambda v=v: sampled(x_T=v) for v in (3, np.zeros(3), torch.zeros(3, dtype=torch.int64))),
    *(lambda v=v: sampled(generator=v) for v in (3, None, np.random.default_rng(0))),
    *(lambda v=v: sampled(context=v) for v in (3, "a", torch.zeros(3))),
    *(lambda v=v: sampled(times=v) for v in ("abc", 3, [5.0, 0.0])),
    *(lambda v=v: sampled(arms=v) for v in ("ddpm", 3, {}, [3])),
    *(lambda v=v: dv.record(GAUSSIAN, SCHEDULE, watch=v) for v in (3, "a")),
    *(lambda v=v: dv.record(v, SCHEDULE) for v in (3, None, "net")),
    *(lambda v=v: dv.ContextUnet(n_feat=v) for v in ("8", None, 8.0, 12)),
    *(lambda v=v: dv.ContextUnet(shortcut=v) for v in (3, None, ["course"])),
    *(lambda v=v: dv.NetworkDenoiser(v, SCHEDULE) for v in (3, None, torch.nn.Linear(2, 2))),
    *(lambda v=v: dv.NetworkDenoiser(NETWORK, SCHEDULE, classes=v) for v in (3, [1] * 5, "abcde")),
    *(lambda v=v: dv.load_denoiser(v) for v in (3, None, b"x", ["a"])),
    *(lambda v=v: saved(path=v) for v in (3, None, b"x")),
    *(lambda v=v: saved(network=v) for v in (3, None)),
    *(lambda v=v: saved(data=v) for v in (3, None, IMAGES)),
    *(lambda v=v: saved(facts=v) for v in ({"a": object()}, {"a": {1, 2}})),
    *(lambda v=v: trained(images=v) for v in ("a", None, 3)),
    *(lambda v=v: trained(schedule=v) for v in (3, None)),
    *(lambda v=v: trained(classes=v) for v in (3, "abc", [1])),
    *(lambda v=v: trained(start=v) for v in (3, "w.pth")),
    *(lambda v=v: trained(progress=v) for v in (3, "a")),
    *(lambda v=v: dv.combine(v) for v in (3, None, [1, 2])),
    *(lambda v=v: dv.Run.load(v) for v in (3, None, b"x")),
]


def test_a_wrong_value_is_one_line(tmp_path, monkeypatch):
    """Kills: numpy's, torch's or Python's own exception, a value that is quietly converted."""
    monkeypatch.chdir(tmp_path)
    for wrong in WRONG:
        with pytest.raises(dv.InputError) as error:
            wrong()
        line = str(error.value)
        values = wrong.__code__.co_names, wrong.__defaults__
        assert line and "\n" not in line and len(line) < 400, values
    assert not list(tmp_path.iterdir())
