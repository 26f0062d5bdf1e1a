"""Every task that is drawn from a seed, on every model."""

import pytest


@pytest.fixture(params=["tiny", "tiny_gqa", "default_model"])
def model(request):
    return request.getfixturevalue(request.param)
