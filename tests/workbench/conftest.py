import jaxtyping
import pytest


@pytest.fixture
def unchecked_types():
    """Calls with wrong types, which the tests' type checker would refuse before our own checks."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
