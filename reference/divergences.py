"""Divergences of distributions, and cross entropies reweighted, as plain forwards."""

import jax
import jax.numpy as jnp
import optax
from jax.scipy.special import xlogy

__all__ = [
    "focal_loss_with_logits",
    "kl_divergence",
    "kl_divergence_with_logits",
    "label_smoothing_cross_entropy",
]


def kl_divergence(p, q):
    return jnp.sum(xlogy(p, p) - xlogy(p, q), axis=-1)


def kl_divergence_with_logits(p_logits, q_logits):
    ratio = jax.nn.log_softmax(p_logits) - jax.nn.log_softmax(q_logits)
    return jnp.sum(jax.nn.softmax(p_logits) * ratio, axis=-1)


def label_smoothing_cross_entropy(logits, labels, *, smoothing=0.1):
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, smoothing))


def focal_loss_with_logits(logits, labels, *, gamma=2.0, alpha=None):
    return optax.sigmoid_focal_loss(logits, labels.astype(logits.dtype), alpha=alpha, gamma=gamma)
