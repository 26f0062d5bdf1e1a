"""Sites of a model, and what the other run has there."""

import pytest

from hooks import capture, sites
from hooks.sites import STREAMS


def everywhere(model):
    return [
        site
        for stream in STREAMS
        if stream in model.access.writable
        for site in sites.all(model, stream)
    ]


@pytest.fixture(scope="session", name="everywhere")
def _everywhere():
    return everywhere


def other_run(model, task, wanted, at="clean"):
    return dict(capture(model, task.corrupt if at == "clean" else task.clean, wanted))


@pytest.fixture(scope="session", name="other_run")
def _other_run():
    return other_run
