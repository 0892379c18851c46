"""One torch thread, so that tests are quick beside each other and give the same bits anywhere."""

import os

import pytest
import torch
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
torch.set_num_threads(1)
settings.register_profile("default", deadline=None, max_examples=30, derandomize=True)
settings.register_profile("study", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def schedule():
    """The tutorial's schedule."""
    from diffviz.schedule import NoiseSchedule

    return NoiseSchedule.course()
