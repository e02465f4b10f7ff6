"""Smooth activations as plain forwards: JAX's own."""

import jax

__all__ = ["celu", "mish", "softsign", "squareplus"]


def mish(x):
    return jax.nn.mish(x)


def softsign(x):
    return jax.nn.soft_sign(x)


def squareplus(x, *, b=4.0):
    return jax.nn.squareplus(x, b)


def celu(x, *, alpha=1.0):
    return jax.nn.celu(x, alpha)
