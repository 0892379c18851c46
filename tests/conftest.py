"""One torch thread, so that tests are quick beside each other and give the same bits anywhere."""

import os
import re
import signal

import pytest
import torch
from hypothesis import settings

from tests.browser import FLAGS, find_chromium

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
torch.set_num_threads(1)
# A shell's background job ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("default", deadline=None, max_examples=30, derandomize=True)
settings.register_profile("study", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_make_parametrize_id(val):
    """ASCII only: pytest does not find an escaped name again, and `make mutate` asks for it."""
    return re.sub("[^ -~]", "_", val) if isinstance(val, str) and not val.isascii() else None


@pytest.fixture
def schedule():
    """The tutorial's schedule."""
    from diffviz.diffusion.schedule import NoiseSchedule

    return NoiseSchedule.course()


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all modules of a worker: playwright's loop runs once in a process."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = find_chromium()
    if found is None:
        if os.environ.get("DIFFVIZ_REQUIRE_BROWSER") == "1":
            pytest.fail("no Chromium")
        pytest.skip("no Chromium")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield launched
        launched.close()
