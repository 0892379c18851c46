"""The zoo of right loops and faults: its texts, its lines and what runs."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from diffviz.diffusion.names import shipped
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.files.catalogue import LANGUAGES
from diffviz.identify import zoo, zoo_results
from tests import cases

SCHEDULE = NoiseSchedule.linear(200, 1e-4, 0.06)


def test_a_fault_changes_what_it_says_and_nothing_else():
    """Kills: a replacement at another place, a wrong text that is left out, a fault that keeps
    the right loop."""
    for one in zoo.faults():
        right, wrong = zoo.programs()[one.program].source, zoo.mutate(one.program, one.name)
        for before, after in one.edits:
            assert right.count(before) == 1 and after in wrong, one.name
        lines = zoo.changes(right, wrong)
        assert "\n".join(line for sign, line in lines if sign != "-") + "\n" == wrong
        assert "\n".join(line for sign, line in lines if sign != "+") + "\n" == right
        assert 1 <= sum(sign != " " for sign, _ in lines) <= 5, one.name


def test_faults_go_together():
    """Kills: a second fault that starts from the right loop again."""
    wrong = zoo.mutate("ddpm", "no-noise", "root-missing")
    assert "z = 0\n" in wrong and "(1 - alpha_bar[t])) / alpha[t]" in wrong


def test_every_loop_and_fault_has_words():
    """Kills: a name twice, a change without a label in one language."""
    names = [*zoo.programs(), *(one.name for one in zoo.faults())]
    assert len(set(names)) == len(names) >= 40
    for language in LANGUAGES:
        titles = {(one.program, zoo.title(one.name, language)) for one in zoo.faults()}
        assert len(titles) == len(zoo.faults())
        assert all(zoo.text(name, language) for name in names)
    assert len(cases.RIGHT) + len(cases.WRONG) >= 140


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (("no-such",), "'no-such' is no fault of ddpm; allowed are no-noise,"),
        (("no-noise", "no-noise"), "stands 0 times in the loop ddpm where no-noise changes it"),
    ],
)
def test_what_cannot_be_changed_is_said_in_a_line(wrong, line):
    """Kills: a KeyError, a fault that is silently left out."""
    with pytest.raises(InputError, match=line):
        zoo.mutate("ddpm", *wrong)
    with pytest.raises(InputError, match="'x' is no loop; allowed are ddpm"):
        zoo.mutate("x")


def exact(program, mean, std):
    """The model that a loop takes, exact for N(mean, std²)."""

    def model(x, t):
        if program.path == "index":
            bar = SCHEDULE.alpha_bars[int(t)]
            a, b = bar**0.5, (1 - bar) ** 0.5
        else:
            a, b = (1.0, float(t)) if program.path == "sigma" else (1 - float(t), float(t))
        x_0 = mean + std**2 * a * (x - a * mean) / (a**2 * std**2 + b**2)
        n = (x - a * x_0) / b
        return {"eps": n, "x0": x_0, "flow": n - x_0, "v": a * n - b * x_0}[program.answer]

    return model


@pytest.mark.parametrize("name", zoo.programs())
def test_a_right_loop_ends_at_the_data(name):
    """The independent judge of the zoo: mean and std of the end are those of the data.

    Kills: a loop that is called right and is wrong, another path or answer than it says.
    """
    program = zoo.programs()[name]
    torch.manual_seed(0)
    end = zoo.sampler(program.source, SCHEDULE)(exact(program, 0.5, 0.5), (4000, 4))
    assert float(end.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(end.std()) == pytest.approx(0.5, abs=0.06)


def test_the_tables_are_those_of_the_schedule():
    """The DDIM loop beside its formula in numpy. Kills: a table shifted, σ for σ²."""
    program = zoo.programs()["ddim"]
    torch.manual_seed(0)
    end = zoo.sampler(program.source, SCHEDULE)(lambda x, t: 0.1 * x, (5, 2))
    torch.manual_seed(0)
    x = torch.randn(5, 2).numpy().astype(np.float64)
    for t, s in pairwise([*range(200, 0, -4), 0]):
        bar, following = SCHEDULE.alpha_bars[t], SCHEDULE.alpha_bars[s]
        eps = 0.1 * x
        x = following**0.5 * (x - (1 - bar) ** 0.5 * eps) / bar**0.5 + (1 - following) ** 0.5 * eps
    np.testing.assert_allclose(end.numpy(), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", [("ddpm",), ("ddpm", "no-noise"), ("flow",)])
def test_the_shipped_results_are_those_of_a_fresh_look(key):
    """Kills: a file left behind by the x-ray or by the loops, rows under another loop's name."""
    kept = zoo_results.results()
    assert list(kept) == [
        *((name,) for name in zoo.programs()),
        *((one.program, one.name) for one in zoo.faults()),
    ]
    program, *faults = key
    fresh, shipped = zoo_results.look(program, faults), kept[key]
    assert shipped.source == fresh.source and shipped.behaves == fresh.behaves == (not faults)
    assert [(f.id, f.severity) for f in shipped.findings] == [
        (f.id, f.severity) for f in fresh.findings
    ]
    for name, values in fresh.curves.items():
        np.testing.assert_allclose(shipped.curves[name], values, rtol=1e-3, atol=1e-4)
    apart = np.abs(shipped.sprites.astype(float) - fresh.sprites)
    assert shipped.sprites.shape == (8, 16, 16, 3) and apart.mean() < 1


def test_what_is_no_file_of_results_is_said_in_a_line(tmp_path):
    """Kills: a traceback of numpy, a pickle that is opened."""
    for content in (b"", b"PK\x05\x06" + bytes(18), b"\x80\x04N."):
        (tmp_path / "zoo.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"zoo\.npz holds no results of the zoo"):
            zoo_results.results(tmp_path / "zoo.npz")


def test_the_shipped_file_is_small():
    assert shipped(zoo_results.FILE).stat().st_size < 2**20
