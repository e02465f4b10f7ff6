"""Activation functions as plain forwards: JAX's own, where it has them."""

import jax
import jax.numpy as jnp

__all__ = [
    "elu",
    "gelu",
    "identity",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "log_sum_exp",
    "relu",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "softmax",
    "softplus",
    "step",
    "tanh",
]


def identity(x):
    return x


def step(x):
    """1 where x ≥ 0, else 0."""
    return (x >= 0).astype(x.dtype)


def sign(x):
    """1 where x ≥ 0, else −1."""
    return 2 * (x >= 0).astype(x.dtype) - 1


def sigmoid(x):
    return jax.nn.sigmoid(x)


def tanh(x):
    return jnp.tanh(x)


def relu(x):
    return jax.nn.relu(x)


def leaky_relu(x, *, negative_slope=0.01):
    return jax.nn.leaky_relu(x, negative_slope)


def elu(x, *, alpha=1.0):
    return jax.nn.elu(x, alpha)


def selu(x):
    return jax.nn.selu(x)


def softplus(x):
    return jax.nn.softplus(x)


def log_sigmoid(x):
    return jax.nn.log_sigmoid(1.0 * x)  # −x of unsigned integers would wrap around


def silu(x):
    return jax.nn.silu(x)


def gelu(x, *, approximate=True):
    return jax.nn.gelu(x, approximate)


def softmax(x, *, axis=-1):
    return jax.nn.softmax(x, axis)


def log_softmax(x, *, axis=-1):
    return jax.nn.log_softmax(x, axis)


def log_sum_exp(x, *, axis=-1, keepdims=False):
    return jax.nn.logsumexp(x, axis, keepdims=keepdims)
