"""For all tests: JAX at its strictest; a test of what is promoted sets that in its own context."""

import pytest


@pytest.fixture(autouse=True)
def _strict():
    """Neither dtypes nor ranks are promoted."""
    import jax

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield
