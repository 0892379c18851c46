"""The pytest plugin, run as other projects run it: in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs/examples/test_my_sampler.py"


def run_pytest(*arguments, cwd):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "diffviz.adapters.pytest_plugin",
        "-p",
        "no:dash",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def test_the_example_passes_and_a_fault_in_it_is_named(tmp_path):
    """The report names the fault in one line and shows the test, not our own code.

    Kills: a fixture that checks nothing, a failure that buries its reason.
    """
    code = EXAMPLE.read_text(encoding="utf-8")
    broken = code.replace("if t > 1 else 0", "* 0")
    assert broken != code
    (tmp_path / "test_right.py").write_text(code, encoding="utf-8")
    (tmp_path / "test_wrong.py").write_text(broken, encoding="utf-8")
    done = run_pytest("-q", tmp_path, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "noise-missing: The noise is missing (t = 200…2)" in done.stdout
    assert "diffviz/testing.py" not in done.stdout


def test_nothing_heavy_is_imported_before_the_fixture():
    """Kills: a plugin that costs everybody's pytest two seconds."""
    code = (
        "import sys, diffviz.adapters.pytest_plugin;"
        "print([m for m in ('torch', 'scipy', 'xarray', 'plotly', 'dash') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
