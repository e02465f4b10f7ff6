"""The affine layer and its relatives as plain forwards."""

import jax.numpy as jnp

__all__ = ["affine", "affine_absorbed", "bilinear", "tied_autoencoder"]


def affine(x, w, b=None):
    """x w + b."""
    y = jnp.einsum("...i,io->...o", x, w)
    return y if b is None else y + b.reshape((1,) * (y.ndim - 1) + b.shape)


def affine_absorbed(x, w):
    """(1, x) w, the bias in the first row of w."""
    one = [(0, 0)] * (x.ndim - 1) + [(1, 0)]
    return jnp.einsum("...i,io->...o", jnp.pad(x, one, constant_values=1), w)


def bilinear(x1, x2, w, b=None):
    """x₁ᵀ W x₂ + b, a matrix W for each output."""
    y = jnp.einsum("...i,ijo,...j->...o", x1, w, x2)
    return y if b is None else y + b.reshape((1,) * (y.ndim - 1) + b.shape)


def tied_autoencoder(x, w, b, c):
    """An encoder, and a decoder with its weights transposed."""
    return affine(jnp.tanh(affine(x, w, b)), w.T, c)
