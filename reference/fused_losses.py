"""The last layer and its loss, one after the other, with all the logits in between."""

import jax.numpy as jnp
import optax

__all__ = ["linear_softmax_cross_entropy"]


def linear_softmax_cross_entropy(x, w, b, labels, *, reduction="mean", block=256):
    """The size of the blocks is of no consequence."""
    logits = jnp.matmul(x, w)
    if b is not None:
        logits = logits + jnp.broadcast_to(b, logits.shape)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean() if reduction == "mean" else losses.sum()
