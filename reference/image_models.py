"""A convolutional network as a plain forward."""

import math

import jax.numpy as jnp
import optax

from handgrad.reference.convolution import conv
from handgrad.reference.networks import mlp

__all__ = ["lenet_loss"]


def lenet_loss(params, x, labels):
    """Twice conv, tanh, mean of every 2×2; then dense layers."""
    for kernel, b in params["convolutions"]:
        y = jnp.tanh(conv(x, kernel) + b[None, None, None, :])
        height, width = y.shape[1] // 2, y.shape[2] // 2
        y = y[:, : 2 * height, : 2 * width]
        x = y.reshape(y.shape[0], height, 2, width, 2, y.shape[3]).mean((2, 4))
    logits = mlp(params["dense"], x.reshape(x.shape[0], math.prod(x.shape[1:])))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
