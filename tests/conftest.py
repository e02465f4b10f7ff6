"""For all tests: JAX at its strictest; a test of what is promoted sets that in its own context."""

import os
import signal

import pytest

# Compiling is most of what the tests do, and LLVM's optimisations most of that; they change the
# speed of what is compiled, and which products and sums are rounded together.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


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
