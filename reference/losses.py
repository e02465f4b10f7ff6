"""Losses as plain forwards: optax's own, where it has them."""

import jax.numpy as jnp
import optax
from jax.scipy.special import xlog1py, xlogy

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "categorical_cross_entropy",
    "half_squared_error",
    "mse",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
    "total_squared_error",
]


def half_squared_error(predictions, targets):
    return optax.l2_loss(predictions, targets).sum(-1)


def squared_error(predictions, targets):
    return optax.squared_error(predictions, targets).sum(-1)


def total_squared_error(predictions, targets):
    return optax.squared_error(predictions, targets).sum()


def mse(predictions, targets):
    return optax.squared_error(predictions, targets).mean()


def binary_cross_entropy(probabilities, labels):
    return -(xlogy(labels, probabilities) + xlog1py(1 - labels, -probabilities))


def binary_cross_entropy_with_logits(logits, labels, *, pos_weight=None):
    if pos_weight is None:
        return optax.sigmoid_binary_cross_entropy(logits, labels)
    of_one = optax.sigmoid_binary_cross_entropy(logits, jnp.ones_like(labels))
    of_zero = optax.sigmoid_binary_cross_entropy(logits, jnp.zeros_like(labels))
    weights = jnp.broadcast_to(jnp.asarray(pos_weight, logits.dtype), logits.shape)
    return labels * weights * of_one + (1 - labels) * of_zero


def categorical_cross_entropy(probabilities, labels):
    return -jnp.sum(xlogy(labels, probabilities), axis=-1)


def softmax_cross_entropy(logits, labels):
    return optax.softmax_cross_entropy(logits, labels)


def softmax_cross_entropy_with_integer_labels(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
