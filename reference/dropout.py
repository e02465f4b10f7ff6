"""Dropout."""

import jax
import jax.numpy as jnp

__all__ = ["dropout"]


def dropout(x, *, key, rate=0.5, scaled=True):
    """Inverted dropout, or without the scale."""
    mask = jax.random.bernoulli(key, jnp.float32(1 - rate), x.shape).astype(x.dtype)
    return x * mask / (1 - rate) if scaled else x * mask
