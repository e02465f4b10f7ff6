"""Pooling as jax.lax has it."""

import math
import operator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["average_pool", "global_average_pool", "global_max_pool", "max_pool"]


def max_pool(x, *, window, stride=None, padding=0):
    """The largest entry of each window of (batch, *space, channels)."""
    return _reduce(x, -jnp.inf, lax.max, window, stride, padding)


def average_pool(x, *, window, stride=None, padding=0, count_include_pad=True):
    """The mean of each window, of its zeros outside x too or of what is inside alone."""
    total = _reduce(x, 0.0, lax.add, window, stride, padding)
    if count_include_pad:
        return total / math.prod(_each(window, x.ndim - 2))
    return total / _reduce(jnp.ones_like(x), 0.0, lax.add, window, stride, padding)


def global_average_pool(x):
    return jnp.mean(x, axis=range(1, x.ndim - 1))


def global_max_pool(x):
    pooled = max_pool(x, window=x.shape[1:-1])
    return pooled.reshape(x.shape[0], x.shape[-1])


def _reduce(x, start, combine, window, stride, padding):
    space = x.ndim - 2
    pads: Any = [_each(p, 2) for p in _each(padding, space)]
    return lax.reduce_window(
        x,
        np.array(start, x.dtype),
        combine,
        (1, *_each(window, space), 1),
        (1, *_each(window if stride is None else stride, space), 1),
        [(0, 0), *pads, (0, 0)],
    )


def _each(value, space) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (operator.index(value),) * space
