"""Where derivations are judged: float64 on the CPU, whatever the user's settings."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from threadpoolctl import ThreadpoolController

try:  # private, and without a public name; without it, only `constants_apart` is void
    from jax._src import dtypes
except ImportError:
    dtypes = None
_dtypes: Any = dtypes


@contextlib.contextmanager
def laboratory() -> Iterator[None]:
    """Float64 on the CPU; the user's settings are as before afterwards."""
    with (
        jax.enable_x64(True),
        jax.default_device(jax.local_devices(backend="cpu")[0]),
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("standard"),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.disable_jit(False),
        jax.transfer_guard("allow"),
        _blas().limit(limits=1, user_api="blas"),  # its threads cost more than these products
    ):
        yield


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


_lock, _inside, _original = threading.Lock(), 0, None


@contextlib.contextmanager
def constants_apart() -> Iterator[None]:
    """Let JAX see a copy of every NumPy array that a traced function closes over.

    JAX remembers an array's form by its identity, in the precision of the first trace, and then
    fails to compile the same function in another precision. So a trace in float64 would leave the
    user's function broken; and find its constants rounded to float32 where it ran before.
    """
    global _inside, _original
    with _lock:
        if not _inside and hasattr(_dtypes, "canonicalize_value"):
            original = _original = _dtypes.canonicalize_value
            _dtypes.canonicalize_value = lambda x: original(
                x.copy() if type(x) is np.ndarray else x
            )
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _original is not None:
                _dtypes.canonicalize_value, _original = _original, None
