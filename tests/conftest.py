"""For all tests: JAX at its strictest; a test of what is promoted sets that in its own context."""

import collections
import os
import signal

import pytest

# Compiling is most of what the tests do, and LLVM's optimisations most of that; they change the
# speed of what is compiled, and which products and sums are rounded together.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def pytest_addoption(parser):
    parser.addoption(
        "--sweep", action="store_true", help="run the sweeps over everything whole, not a part"
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "sweep(n): one test over very many things, of which every n-th is run by default"
    )


def pytest_collection_modifyitems(config, items):
    """Of a sweep every n-th, beginning with the first; all of it with --sweep."""
    if config.getoption("sweep"):
        return
    seen, left_out = collections.Counter(), []
    for item in items:
        mark = item.get_closest_marker("sweep")
        if mark is not None:
            if seen[item.function] % mark.args[0]:
                left_out.append(item)
            seen[item.function] += 1
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _strict():
    """Neither dtypes nor ranks are promoted."""
    import jax

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def anew():
    """What a test changes in a module is in what it compiles, and in nothing that others do."""
    import jax

    jax.clear_caches()
    yield jax.clear_caches
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """A shell ignores Ctrl-C for what it runs in the background, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
