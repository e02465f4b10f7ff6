"""Where derivations are judged: float64 on the CPU, whatever the user's settings."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from threadpoolctl import ThreadpoolController

try:  # private, and without a public name; without them, only `tracing` is void
    from jax._src import dtypes, source_info_util
except ImportError:
    dtypes = source_info_util = None
_dtypes: Any = dtypes
_lines: Any = source_info_util


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


_lock, _inside = threading.Lock(), 0
_canonical: Any = getattr(_dtypes, "canonicalize_value", None)
_call = jax.custom_vjp.__call__


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Let JAX trace what is the user's without leaving traces in it, and know every line.

    JAX remembers an array's form by its identity, in the precision of the first trace, and then
    fails to compile the same function in another precision. So a trace in float64 would leave the
    user's function broken; and find its constants rounded to float32 where it ran before. It
    sees a copy of every NumPy array that a function closes over.

    Of what the backward of a custom_vjp computes, JAX says that the call of the forward made it.
    """
    global _inside
    with _lock:
        if not _inside and _canonical is not None:
            _dtypes.canonicalize_value = _of_a_copy
        if not _inside and hasattr(_lines, "_source_info_context"):
            jax.custom_vjp.__call__ = _in_its_lines
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                jax.custom_vjp.__call__ = _call
                if _canonical is not None:
                    _dtypes.canonicalize_value = _canonical


def _of_a_copy(value: Any) -> Any:
    return _canonical(value.copy() if type(value) is np.ndarray else value)


def _in_its_lines(self: jax.custom_vjp, *args: Any, **kwargs: Any) -> Any:
    rule = self.bwd
    if rule is None:
        return _call(self, *args, **kwargs)

    def backward(*given: Any) -> Any:
        now = _lines._source_info_context
        before, now.context = now.context, _lines.new_source_info()
        try:
            return rule(*given)
        finally:
            now.context = before

    return _call(with_rules(self, bwd=backward), *args, **kwargs)


def with_rules(like: jax.custom_vjp, **rules: Any) -> Any:
    """The same function with another `fwd` or `bwd`."""
    other = jax.custom_vjp(like.fun)
    vars(other).update(vars(like) | rules)
    return other
