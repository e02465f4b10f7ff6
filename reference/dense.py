"""The affine layer as plain forwards."""

import jax.numpy as jnp

__all__ = ["affine", "affine_absorbed"]


def affine(x, w, b=None):
    """x w + b."""
    y = jnp.einsum("...i,io->...o", x, w)
    return y if b is None else y + b.reshape((1,) * (y.ndim - 1) + b.shape)


def affine_absorbed(x, w):
    """(1, x) w, the bias in the first row of w."""
    one = [(0, 0)] * (x.ndim - 1) + [(1, 0)]
    return jnp.einsum("...i,io->...o", jnp.pad(x, one, constant_values=1), w)
