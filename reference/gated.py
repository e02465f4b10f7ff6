"""Gated linear units as plain forwards."""

import jax

__all__ = ["geglu", "glu", "swiglu"]


def glu(x, *, axis=-1):
    return jax.nn.glu(x, axis)


def swiglu(gate, value):
    return jax.nn.swish(gate) * value


def geglu(gate, value, *, approximate=True):
    return jax.nn.gelu(gate, approximate) * value
