"""Penalties on the weights, and the soft threshold."""

import jax
import jax.numpy as jnp
import optax

__all__ = ["elastic_net", "l1_penalty", "l2_penalty", "soft_threshold"]


def l2_penalty(w, *, strength=1.0):
    """Half the strength times the sum of squares."""
    return strength * optax.l2_loss(w).sum()


def l1_penalty(w, *, strength=1.0):
    """The strength times the sum of absolute values."""
    return strength * jnp.sum(jnp.abs(w))


def elastic_net(w, *, l1=1.0, l2=1.0):
    """l1 times the absolute values and l2 times the squares, summed."""
    return l1 * jnp.sum(jnp.abs(w)) + l2 * jnp.vdot(w, w)


def soft_threshold(w, *, threshold=1.0):
    """The proximal operator of the absolute value."""
    return jax.nn.relu(w - threshold) - jax.nn.relu(-w - threshold)
