"""A pytest plugin: the fixture ``assert_sampler``, for the tests of other projects.

pytest finds it by itself where diffviz is installed. It imports nothing heavy before a test asks
for the fixture. See ``docs/examples/test_my_sampler.py``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def assert_sampler() -> Iterator[Callable[..., Any]]:
    """`diffviz.testing.assert_sampler`, with torch's global generator seeded and put back after.

    Samplers draw from that generator as a rule, and a test should say the same thing every time.
    """
    import torch

    from diffviz.testing import assert_sampler

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield assert_sampler
