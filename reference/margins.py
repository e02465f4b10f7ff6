"""Losses of margins and similarities as plain forwards."""

import jax
import jax.numpy as jnp
import optax

__all__ = [
    "cosine_similarity_loss",
    "hinge",
    "info_nce",
    "multiclass_hinge",
    "squared_hinge",
    "triplet_margin",
]


def hinge(scores, labels):
    return jax.nn.relu(1 - labels * scores)


def squared_hinge(scores, labels):
    return jax.nn.relu(1 - labels * scores) ** 2


def multiclass_hinge(scores, labels, *, margin=1.0):
    """What each class lacks of a margin below the label's; the label itself is left out."""
    one_hot = jax.nn.one_hot(labels, scores.shape[-1], dtype=scores.dtype)
    label = (scores * one_hot).sum(-1, keepdims=True)
    return (jax.nn.relu(scores - label + margin) * (1 - one_hot)).sum(-1)


def triplet_margin(anchor, positive, negative, *, margin=1.0):
    """How much less than the margin the negative is farther off than the positive."""
    near, far = (_distance(anchor, other) for other in (positive, negative))
    return jax.nn.relu(near - far + margin)


def cosine_similarity_loss(predictions, targets):
    """One minus the cosine; one where a vector is zero."""
    lengths = _length(predictions) * _length(targets)
    zero = lengths == 0
    products = (predictions * targets).sum(-1)
    return 1 - jnp.where(zero, 0, products) / jnp.where(zero, 1, lengths)


def info_nce(queries, keys, *, temperature=0.1, symmetric=False):
    """The cross entropy of finding each query's own key among all, and perhaps the converse."""
    logits = jnp.einsum("nd,md->nm", queries, keys) / temperature
    own = jnp.eye(len(queries), dtype=logits.dtype)
    loss = optax.softmax_cross_entropy(logits, own)
    if symmetric:
        loss = (loss + optax.softmax_cross_entropy(logits.T, own)) / 2
    return loss


def _distance(a, b):
    return _length(a - b)


def _length(x):
    """The Euclidean length along the last axis, with derivative zero at zero."""
    zero = jnp.all(x == 0, -1, keepdims=True)
    return jnp.where(zero[..., 0], 0, jnp.linalg.norm(jnp.where(zero, 1, x), axis=-1))
