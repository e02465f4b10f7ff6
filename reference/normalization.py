"""Normalisation over the batch."""

import jax
import jax.numpy as jnp

__all__ = ["batch_norm", "batch_norm_inference"]


def batch_norm(x, gamma, beta, *, eps=1e-5):
    """Training: the output, and mean and variance of the batch."""
    rows = x.reshape(-1, x.shape[-1])
    mean, var = jnp.mean(rows, 0), jnp.var(rows, 0)
    y = jax.nn.standardize(rows, axis=0, epsilon=eps) * gamma[None] + beta[None]
    return y.reshape(x.shape), mean, var


def batch_norm_inference(x, gamma, beta, mean, var, *, eps=1e-5):
    """Evaluation, with running statistics."""
    rows = x.reshape(-1, x.shape[-1])
    y = gamma[None] * (rows - mean[None]) / jnp.sqrt(var + eps)[None] + beta[None]
    return y.reshape(x.shape)
