"""Clipping as plain forwards."""

import jax
import jax.numpy as jnp
import optax

__all__ = ["clip_by_global_norm", "clip_by_norm", "clip_by_value"]


def clip_by_value(x, *, low, high):
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def clip_by_norm(x, *, max_norm):
    return clip_by_global_norm([x], max_norm=max_norm)[0]


def clip_by_global_norm(tree, *, max_norm):
    """The tree, scaled down to the largest norm allowed where it is longer."""
    squares = optax.tree.norm(tree, squared=True)
    long = squares > max_norm**2
    factor = max_norm / jnp.sqrt(jnp.where(long, squares, 1))
    return jax.tree.map(lambda x: jnp.where(long, x * factor.astype(x.dtype), x), tree)
