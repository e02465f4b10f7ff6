"""Losses of an error as plain forwards: optax's own, where it has them."""

import jax.numpy as jnp
import optax

__all__ = ["huber", "log_cosh", "mae", "smooth_l1"]


def mae(predictions, targets):
    error = predictions - targets
    return jnp.mean(jnp.maximum(error, -error))  # |e|, with the derivative 0 at 0


def huber(predictions, targets, *, delta=1.0):
    return optax.huber_loss(predictions, targets, delta=delta).sum(-1)


def smooth_l1(predictions, targets, *, beta=1.0):
    """The absolute error, rounded off by a parabola within beta of zero."""
    error = predictions - targets
    near = jnp.abs(error) < beta
    rounded = jnp.where(near, error**2 / (2 * beta), jnp.abs(error) - beta / 2)
    return rounded.sum(-1)


def log_cosh(predictions, targets):
    return optax.log_cosh(predictions, targets).sum(-1)
