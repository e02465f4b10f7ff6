"""The last layer and its loss, one after the other, with all the logits in between."""

import jax.numpy as jnp
import optax

__all__ = ["linear_softmax_cross_entropy"]


def linear_softmax_cross_entropy(
    x, w, b, labels, *, reduction="mean", block=384, ignore_index=None
):
    """The size of the blocks is of no consequence."""
    logits = jnp.matmul(x, w)
    if b is not None:
        logits = logits + jnp.broadcast_to(b, logits.shape)
    return cross_entropy(logits, labels, ignore_index, reduction)


def cross_entropy(logits, labels, ignore_index, reduction="mean"):
    """Of the rows that are not ignored, as if there were no others."""
    counted = None
    if ignore_index is not None:
        counted = labels != ignore_index
        labels = jnp.where(counted, labels, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(where=counted) if reduction == "mean" else losses.sum(where=counted)
