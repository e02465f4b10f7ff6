"""For all tests: JAX at its strictest; a test of what is promoted sets that in its own context."""

import signal

import pytest


@pytest.fixture(autouse=True)
def _strict():
    """Neither dtypes nor ranks are promoted."""
    import jax

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """A shell ignores Ctrl-C for what it runs in the background, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
